//! Compiles the CUDA kernels to PTX, which the driver compiles for the GPU it meets. Does nothing without the feature `cuda`.
//!
//! The PTX is made anew by each build rather than kept in the repository: candle's own kernels need nvcc anyway, and a kept one
//! could differ from its source.

use std::{env, path::PathBuf, process::Command};

const KERNELS: &str = "src/model/ops/cuda/kernels";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed={KERNELS}");
    println!("cargo::rerun-if-env-changed=NVCC");
    let nvcc = env::var_os("NVCC").unwrap_or_else(|| "nvcc".into());
    let ptx = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("kernels.ptx");
    // The oldest architecture with bfloat16 on its tensor cores.
    let status = Command::new(&nvcc)
        .args(["-ptx", "-arch=compute_80", "-std=c++17", "-O3", "-o"])
        .arg(&ptx)
        .arg(format!("{KERNELS}/all.cu"))
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("nvcc could not compile the CUDA kernels: {status}"),
        Err(e) => {
            panic!("{} cannot be started ({e}): build with scripts/cuda/build.sh, which fetches it", nvcc.display())
        }
    }
}
