//! A job's metrics for TensorBoard, while its run still writes them.

use std::io::Read;

use mrpo::{domain::RunId, run_dir::RunDir};

use crate::support::Server;

#[test]
fn event_files_come_as_they_are_now_and_nothing_else() {
    let server = Server::start();
    let (job, run) = (server.add_job(), RunId::new());
    let path = format!("/v1/fine_tuning/jobs/{job}/tensorboard");
    server.get(&path).error(409, "not_ready");
    server.execute("insert into runs (run_id, job_id) values (?, ?)", &[run.as_str(), &job]);
    server.get(&path).error(409, "not_ready");

    let directory = RunDir::new(server.data_dir().join("runs").join(run.as_str())).tensorboard();
    std::fs::create_dir_all(&directory).expect("directory");
    for (name, content) in [
        ("events.out.tfevents.0000000001.mrpo.0", "first"),
        ("events.out.tfevents.0000000002.mrpo.0", "second"),
        ("secret", "x"),
    ] {
        std::fs::write(directory.join(name), content).expect("write");
    }
    let answer = server.get(&path);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-tar")));
    let mut archive = tar::Archive::new(answer.body.as_slice());
    let files: Vec<(String, String)> = archive
        .entries()
        .expect("entries")
        .map(|entry| {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a path").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("its content");
            (name, text)
        })
        .collect();
    let expected = [(1, "first"), (2, "second")]
        .map(|(n, text)| (format!("{job}/events.out.tfevents.000000000{n}.mrpo.0"), text.to_owned()));
    assert_eq!(files, expected);
    server.get(&format!("/v1/fine_tuning/jobs/ftjob-{:032}/tensorboard", 7)).error(404, "job_not_found");
}
