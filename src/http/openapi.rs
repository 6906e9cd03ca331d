//! The API's description, generated from the handlers: OpenAPI 3.1.

use std::sync::LazyLock;

use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, Ref, RefOr, ResponseBuilder, path::PathItem,
};

use super::{error_body::ErrorBody, routes};

/// The document as it is served, committed and printed: indented, with a last newline.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let mut text = serde_json::to_string_pretty(&generate()).expect("a description always serialises");
        text.push('\n');
        text
    });
    &DOCUMENT
}

fn generate() -> OpenApi {
    let mut api = routes().into_openapi();
    api.info = InfoBuilder::new()
        .title(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(concat!(
            env!("CARGO_PKG_DESCRIPTION"),
            ".\n\nThe wire is OpenAI's for files, models and fine-tuning jobs: its SDKs work unchanged. Every answer \
             carries `x-request-id`; every error is `application/problem+json` and lists all problems of a request."
        )))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").build()))
        .build();
    let components = api.components.get_or_insert_with(Components::new);
    add_schema::<ErrorBody>(components);
    // The router's `{*model}` takes in slashes; the description knows only `{model}`.
    let paths = std::mem::take(&mut api.paths.paths);
    api.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    api.paths.paths.values_mut().for_each(describe_errors);
    api
}

fn add_schema<T: utoipa::ToSchema>(components: &mut Components) {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    components.schemas.extend(schemas);
}

/// Every answer with an error's status has the one body; whatever else may go wrong is the `default`.
fn describe_errors(item: &mut PathItem) {
    let operations = [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten();
    for operation in operations {
        let answers = &mut operation.responses.responses;
        for (status, answer) in answers.iter_mut() {
            if let RefOr::T(answer) = answer
                && status.starts_with(['4', '5'])
            {
                answer.content.insert("application/problem+json".to_owned(), RefOr::T(error_content()));
            }
        }
        let other = ResponseBuilder::new()
            .description("Any other error: 404, 405, 500, 503")
            .content("application/problem+json", error_content());
        answers.insert("default".to_owned(), RefOr::T(other.build()));
    }
}

fn error_content() -> utoipa::openapi::Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build()
}
