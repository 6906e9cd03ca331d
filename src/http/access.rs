//! Who asks, and what they may: every request's key, and whether they may see or change what its address names.
//!
//! It stands before every route, so that no handler can forget it: the names of an address's parts say what they stand for, and a
//! test holds that none is unknown here. What a query or a body names is the handler's to look up, with [`Seen`], [`see`] and [`change`].

use std::sync::atomic::{AtomicBool, Ordering};

use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State},
    http::{HeaderMap, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    App,
    error::{ApiError, ErrorCode},
    event_stream,
    observe::RequestId,
    stream_tokens,
};
use crate::{
    domain::{
        Caller, FileId, FileRecord, InvalidId, ModelId, ModelRecord, Ownership, ReferenceList, ReferenceListId, Role,
        Scope, Secret, Viewer,
    },
    store::{AuditNote, Owned, Store, StoreError, unix_now},
};

/// Routes that everybody may ask: they tell whether the server lives and what it can do, and nothing of anybody.
const PUBLIC: [&str; 4] = ["/", "/healthz", "/readyz", "/openapi.json"];
/// Routes that change nothing of what they name, although they are no GET: to see it is enough.
const USES: [&str; 2] = ["/v1/models/{model}/preview", "/v1/models/{model}/exports"];
/// The longest key that is looked up.
pub(super) const MAX_KEY_BYTES: usize = 256;

/// Whether everybody is asked for a key: from the first key on.
#[derive(Debug, Default)]
pub(super) struct KeysAsked(AtomicBool);

impl KeysAsked {
    async fn is_so(&self, store: &Store) -> Result<bool, StoreError> {
        // Keys are never deleted, so that a yes stays one; the first may be made while we serve.
        if !self.0.load(Ordering::Relaxed) && store.has_keys().await? {
            self.0.store(true, Ordering::Relaxed);
        }
        Ok(self.0.load(Ordering::Relaxed))
    }
}

/// The middleware: lets a request through to its handler, which finds the [`Caller`] in it.
pub(super) async fn guard(State(app): State<App>, params: RawPathParams, mut req: Request, next: Next) -> Response {
    let route = req.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    if PUBLIC.contains(&route.as_str()) {
        return next.run(req).await;
    }
    let token = stream_tokens::shown(&route, &req);
    let caller = match admit(&app, (&route, &params, token), (req.method(), req.headers())).await {
        Ok(caller) => caller,
        Err(refusal) => return refusal.into_response(),
    };
    let is_stream = event_stream::is_stream(&route, &req);
    let place = if is_stream { None } else { app.in_flight().enter_with_key(&caller) };
    if place.is_none() && !is_stream {
        let message = "too many requests at once with this key: send it again when one of them is done";
        return ApiError::new(ErrorCode::RateLimited, message).into_response();
    }
    let method = req.method().clone();
    let request_id = req.extensions().get::<RequestId>().map_or_else(String::new, |id| id.0.clone());
    req.extensions_mut().insert(caller.clone());
    let response = next.run(req).await;
    if !method.is_safe() {
        let note = AuditNote {
            caller: &caller,
            action: &format!("{method} {route}"),
            subject: params.iter().next().map(|(_, value)| value),
            status: response.status().as_u16(),
            request_id: &request_id,
        };
        if let Err(e) = app.store().note(&note).await {
            // It has happened: an answer that says otherwise would be repeated.
            tracing::error!(error = &e as &dyn std::error::Error, "the audit log could not be written");
        }
    }
    response
}

async fn admit(
    app: &App,
    (route, params, token): (&str, &RawPathParams, Option<Secret>),
    (method, headers): (&Method, &HeaderMap),
) -> Result<Caller, ApiError> {
    let caller = caller(app, headers, token).await?;
    let only_looks = method == Method::GET || method == Method::HEAD;
    if caller.scope == Scope::Read && !only_looks && route != stream_tokens::ROUTE {
        let message = "this key may only look (its scope is 'read'): use one with the scope 'write'";
        return Err(ApiError::new(ErrorCode::InsufficientScope, message));
    }
    if !app.rate().allows(&caller) {
        let message = "too many requests with this key: send it again in a moment";
        return Err(ApiError::new(ErrorCode::RateLimited, message));
    }
    for (name, value) in params {
        // What cannot be an id is the handler's to refuse, in the words of its kind.
        let Ok(Some(thing)) = named(name, value) else { continue };
        if only_looks || USES.contains(&route) {
            see(app, &caller, &thing).await?;
        } else {
            change(app, &caller, &thing).await?;
        }
    }
    Ok(caller)
}

/// What a part of an address stands for; none where it is a part of what stands before it.
fn named(name: &str, value: &str) -> Result<Option<Owned>, InvalidId> {
    Ok(Some(match name {
        "file_id" => Owned::File(value.parse()?),
        "upload_id" => Owned::Upload(value.parse()?),
        "model" => Owned::Model(value.parse()?),
        "reference_list_id" => Owned::ReferenceList(value.parse()?),
        "job_id" => Owned::Job(value.parse()?),
        "export_id" => Owned::Export(value.parse()?),
        _ => return Ok(None),
    }))
}

async fn caller(app: &App, headers: &HeaderMap, token: Option<Secret>) -> Result<Caller, ApiError> {
    if !app.keys_asked().is_so(app.store()).await? {
        return Ok(Caller::ANYBODY);
    }
    let refused = |message: &str| ApiError::new(ErrorCode::Unauthenticated, message);
    let Some(shown) = bearer(headers) else {
        if let Some(token) = token {
            return by_token(app, &token).await?.ok_or_else(|| {
                refused("this token opens no stream any more: make one with POST /v1/stream_tokens and your key")
            });
        }
        return Err(refused(
            "this server asks for a key: send 'Authorization: Bearer mrpo_…' (whoever runs the server makes one with \
             `mrpo keys create --user NAME`)",
        ));
    };
    let key = app.store().use_key(&Secret::shown_by_client(shown), unix_now()).await?;
    match key {
        Some(key) => Ok(Caller::from(&key)),
        None => Err(refused("this key does not work: it is mistyped, revoked or expired")),
    }
}

/// For whom a token was made, if it and their key still work.
async fn by_token(app: &App, token: &Secret) -> Result<Option<Caller>, StoreError> {
    let now = unix_now();
    let Some(caller) = app.stream_tokens().caller(token, now) else { return Ok(None) };
    let key_works = match &caller.key {
        Some(key) => app.store().key_works(key, now).await?,
        None => false, // made before there were keys
    };
    Ok(key_works.then_some(caller))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty() && key.len() <= MAX_KEY_BYTES).then(|| key.trim())
}

/// Whether they may see and use something.
///
/// # Errors
/// As if it did not exist.
pub(super) async fn see(app: &App, caller: &Caller, thing: &Owned) -> Result<(), ApiError> {
    seen(app, caller, thing).await.map(drop)
}

/// Whose something is that they may see.
async fn seen(app: &App, caller: &Caller, thing: &Owned) -> Result<Ownership, ApiError> {
    let ownership = app.store().ownership(thing).await?;
    if ownership.lets_see(&caller.viewer()) {
        return Ok(ownership);
    }
    Err(StoreError::NotFound { kind: thing.kind(), id: thing.id().to_owned() }.into())
}

/// Whether they may change or delete something.
///
/// # Errors
/// As if it did not exist, or, of what they see but do not own, that it is not theirs.
pub(super) async fn change(app: &App, caller: &Caller, thing: &Owned) -> Result<(), ApiError> {
    let ownership = seen(app, caller, thing).await?;
    if ownership.lets_change(caller) {
        return Ok(());
    }
    let whose = ownership.owner.map_or_else(|| "the team".to_owned(), |owner| owner.to_string());
    let message = format!(
        "{} '{}' belongs to {whose}: you may see and use it; to change it ask its owner or an admin",
        thing.kind(),
        thing.id()
    );
    Err(ApiError::new(ErrorCode::NotOwner, message))
}

/// Whether they may do what only admins do.
///
/// # Errors
/// If not.
pub(super) fn only_admins(caller: &Caller) -> Result<(), ApiError> {
    if caller.role == Role::Admin {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::AdminsOnly, "only an admin may do this: ask one, or use an admin's key"))
}

/// What a request's body names, looked up through the eyes of whoever asks: what they may not see does not exist.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    store: &'a Store,
    viewer: Viewer,
}

impl<'a> Seen<'a> {
    /// Through the eyes of `caller`.
    pub(super) fn by(caller: &Caller, app: &'a App) -> Self {
        Self { store: app.store(), viewer: caller.viewer() }
    }

    /// A file.
    pub(super) async fn file(&self, id: &FileId) -> Result<FileRecord, StoreError> {
        let file = self.store.file(id).await?;
        self.only_if_seen(&file.ownership, "file", id.as_str())?;
        Ok(file)
    }

    /// A model.
    pub(super) async fn model(&self, id: &ModelId) -> Result<ModelRecord, StoreError> {
        let model = self.store.model(id).await?;
        self.only_if_seen(&model.ownership, "model", id.as_str())?;
        Ok(model)
    }

    /// A reference list.
    pub(super) async fn reference_list(&self, id: &ReferenceListId) -> Result<ReferenceList, StoreError> {
        let list = self.store.reference_list(id).await?;
        self.only_if_seen(&list.ownership, "reference list", id.as_str())?;
        Ok(list)
    }

    fn only_if_seen(&self, ownership: &Ownership, kind: &'static str, id: &str) -> Result<(), StoreError> {
        if ownership.lets_see(&self.viewer) {
            return Ok(());
        }
        Err(StoreError::NotFound { kind, id: id.to_owned() })
    }
}

/// Who asks, for handlers.
#[derive(Debug)]
pub(super) struct By(pub(super) Caller);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // A route without the guard is a defect: it must not let anybody through.
        let caller = parts.extensions.get().cloned();
        caller.map(Self).ok_or_else(|| ApiError::internal("a route stands outside the guard"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes;

    /// Parts of an address that are no thing of their own: each stands behind one that is, or is an admin's.
    const PARTS: [&str; 3] = ["checkpoint_id", "name", "key_id"];

    #[test]
    fn every_part_of_every_address_is_known() {
        let api = routes().into_openapi();
        let mut n_guarded = 0;
        for path in api.paths.paths.keys() {
            let mut stands_behind_one = false;
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                let name = part.trim_start_matches('*');
                let known = !matches!(named(name, "x"), Ok(None));
                n_guarded += usize::from(known);
                assert!(
                    known || (PARTS.contains(&name) && (stands_behind_one || name == "key_id")),
                    "{name} of {path}"
                );
                stands_behind_one |= known;
            }
        }
        assert!(n_guarded > 10, "{n_guarded}");
    }

    #[test]
    fn a_key_is_read_from_its_header() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("value"));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with("Bearer mrpo_1").as_deref(), Some("mrpo_1"));
        assert_eq!(with("bearer mrpo_1").as_deref(), Some("mrpo_1"));
        for bad in ["mrpo_1", "Basic mrpo_1", "Bearer ", &format!("Bearer {}", "x".repeat(300))] {
            assert_eq!(with(bad), None, "{bad}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
