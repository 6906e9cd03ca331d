//! Upload forms of every shape: each has an answer of its own, and only what was accepted is kept.

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use ureq::http::Method;

use crate::support::{Server, ids, pairs, wait_until};

/// A form's bytes, and the boundary its head names.
#[derive(Debug)]
struct Form {
    boundary: String,
    body: Vec<u8>,
}

fn odd_part() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        6 => Just("file"), 6 => Just("purpose"), 3 => Just("format"), 1 => Just(""), 1 => Just("files"), 1 => Just("a\"b"),
    ];
    let filename = prop_oneof![
        4 => Just("; filename=\"x.jsonl\""), 2 => Just(""), 1 => Just("; filename=\"\""),
        1 => Just("; filename=\"../../x\\y\""), 1 => Just("; filename=\"\u{e9}\u{1}\""), 1 => Just("; filename=\"open"),
    ];
    let content = prop_oneof![
        3 => Just(pairs(1).into_bytes()), 3 => Just(b"fine-tune".to_vec()), 2 => Just(b"trl_standard".to_vec()),
        1 => vec(any::<u8>(), 0..80), 1 => Just(b"--XX--\r\n".to_vec()), 1 => Just(vec![b'x'; 3000]),
    ];
    let head = prop_oneof![
        12 => Just("Content-Disposition: form-data; name="), 1 => Just("content-disposition:form-data;name="),
        1 => Just("Content-Type: text/plain\r\nContent-Disposition: form-data; name="), 1 => Just("X: "),
    ];
    (head, name, filename, content).prop_map(|(head, name, filename, content)| {
        let head = format!("{head}\"{name}\"{filename}\r\n\r\n");
        [head.into_bytes(), content, b"\r\n".to_vec()].concat()
    })
}

/// Parts that are right, so that some forms are.
fn any_part() -> impl Strategy<Value = Vec<u8>> {
    let part = |name: &str, content: &str| {
        Just(format!("Content-Disposition: form-data; name={name}\r\n\r\n{content}\r\n").into_bytes())
    };
    prop_oneof![
        4 => part("\"file\"; filename=\"x.jsonl\"", &pairs(2)),
        4 => part("\"purpose\"", "fine-tune"),
        1 => part("\"format\"", "trl_standard"),
        3 => odd_part(),
    ]
}

fn any_form() -> impl Strategy<Value = Form> {
    let boundaries =
        prop_oneof![8 => Just(("XX", "XX")), 1 => Just(("XX", "YY")), 1 => Just(("", "")), 1 => Just(("a b", "a b"))];
    let cut = proptest::option::weighted(0.3, 0.0..1.0_f64);
    let change = proptest::option::weighted(0.2, (0.0..1.0_f64, any::<u8>()));
    (boundaries, vec(any_part(), 0..5), cut, change).prop_map(|((named, used), parts, cut, change)| {
        let mut body: Vec<u8> =
            parts.iter().flat_map(|part| [format!("--{used}\r\n").into_bytes(), part.clone()].concat()).collect();
        body.extend(format!("--{used}--\r\n").into_bytes());
        let place = |at: f64| (at * body.len() as f64) as usize;
        if let Some((at, byte)) = change.map(|(at, byte)| (place(at), byte)) {
            body[at] = byte;
        }
        if let Some(at) = cut.map(|at| (at * body.len() as f64) as usize) {
            body.truncate(at);
        }
        Form { boundary: named.to_owned(), body }
    })
}

#[test]
fn every_form_has_its_answer_and_leaves_only_what_was_accepted() {
    let server = Server::with(|settings| settings.max_upload_bytes = 2000);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let accepted = std::cell::RefCell::new(Vec::new());
    let result = TestRunner::new(config).run(&any_form(), |form| {
        let content_type = format!("multipart/form-data; boundary=\"{}\"", form.boundary);
        let answer = server.send(Method::POST, "/v1/files", &[("content-type", &content_type)], Some(form.body));
        match answer.status {
            200 => accepted.borrow_mut().push(answer.ok()["id"].as_str().expect("id").to_owned()),
            400 | 413 => {
                let body = answer.json();
                prop_assert!(body["error"]["message"].as_str().is_some_and(|text| text.len() > 9), "{}", body);
            }
            other => prop_assert!(false, "status {other}: {}", String::from_utf8_lossy(&answer.body)),
        }
        Ok(())
    });
    result.expect("every form is answered");
    let accepted = accepted.into_inner();
    let mut listed = ids(&server.get("/v1/files").ok());
    listed.reverse();
    assert_eq!(listed, accepted);
    assert!(!accepted.is_empty());
    for id in &accepted {
        let file = server.wait_for_check(id);
        assert_ne!(file["status"], "uploaded");
    }
    let left = |folder: &str| std::fs::read_dir(server.data_dir().join(folder)).expect("folder").count();
    wait_until("uploads are cleared away", || left("tmp") == 0);
    assert_eq!(left("files"), accepted.len());
}
