//! mrpo: fine-tuning on human preferences against several reference models, behind a REST API.
//!
//! Two halves that never import each other: the service (`http`, `store`, `worker`, `launch`, `deliver`) and the training (`run`,
//! `train`, `objective`, `model`, `text`, `score`, `fetch`, `export`, `device_check`). ARCHITECTURE.md has the picture; `tests/architecture.rs` holds it.

pub mod dataset;
pub mod deliver;
pub mod demo;
pub mod device_check;
pub mod domain;
pub mod export;
pub mod fetch;
pub mod http;
pub mod launch;
pub mod model;
pub mod objective;
pub mod run;
pub mod run_dir;
pub mod score;
pub mod store;
pub mod text;
pub mod train;
pub mod worker;
