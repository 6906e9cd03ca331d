//! Questions that a run answers while the request waits: asked, waited for, forgotten.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::{
    App,
    error::{ApiError, ErrorCode},
};
use crate::domain::{Failure, Inspection, InspectionId, Question};

/// How often a request looks for its answer.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks, waits for at most `patience`, and forgets.
///
/// # Errors
/// What `refusal` makes of a run's failure; [`ErrorCode::InspectionTimeout`] where there is no answer in time.
pub(super) async fn ask<T: DeserializeOwned>(
    app: &App,
    question: &Question,
    patience: Duration,
    refusal: impl FnOnce(Failure) -> ApiError,
) -> Result<T, ApiError> {
    let id = app.store().insert_inspection(question).await?;
    let outcome = wait(app, &id, patience).await;
    app.store().delete_inspection(&id).await?;
    match outcome? {
        Inspection::Done(result) => serde_json::from_str(&result)
            .map_err(|e| ApiError::new(ErrorCode::Internal, "the answer cannot be read").caused_by(e)),
        Inspection::Failed(failure) => Err(refusal(failure)),
        Inspection::Pending => {
            let message = format!("there was no answer within {} s: is the server busy? ask again", patience.as_secs());
            Err(ApiError::new(ErrorCode::InspectionTimeout, message))
        }
    }
}

async fn wait(app: &App, id: &InspectionId, patience: Duration) -> Result<Inspection, ApiError> {
    let began = Instant::now();
    loop {
        let inspection = app.store().inspection(id).await?;
        if inspection != Inspection::Pending || began.elapsed() > patience {
            return Ok(inspection);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
