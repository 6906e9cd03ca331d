//! Stands in for the dataset formats of the branch `objective` until that is merged: take its file for this one.

use std::io::{BufRead, Result};

use crate::domain::{DatasetFormat, DatasetReport};

/// Finds nothing wrong with any file.
pub fn check(_: impl BufRead, _: Option<DatasetFormat>) -> Result<DatasetReport> {
    Ok(DatasetReport::default())
}
