//! The one table of error codes: the word, the status and the title of each.

use axum::http::StatusCode;

/// What kind of error it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorCode {
    InvalidJson,
    InvalidRequest,
    InvalidQuery,
    InvalidMultipart,
    UnknownCursor,
    RequestTimeout,
    RouteNotFound,
    FileNotFound,
    ModelNotFound,
    ReferenceListNotFound,
    JobNotFound,
    CheckpointNotFound,
    KeyNotFound,
    ExportNotFound,
    UploadNotFound,
    WebhookNotFound,
    DeliveryNotFound,
    MethodNotAllowed,
    IllegalTransition,
    NotReady,
    TooManyWaiting,
    DiskLimit,
    AlreadyExists,
    InUse,
    TooMany,
    UploadEnded,
    InProgress,
    KeyReused,
    BodyTooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    Unauthenticated,
    InsufficientScope,
    AdminsOnly,
    NotOwner,
    RateLimited,
    TooManyStreams,
    PathModelsDisabled,
    RemoteModelsDisabled,
    WebhookHostNotAllowed,
    WebhookUnreachable,
    InspectionFailed,
    InspectionTimeout,
    Internal,
    Overloaded,
    Unready,
    DiskFull,
}

impl ErrorCode {
    /// All of them, for the API document. As many as there are: the last one is the last.
    pub(super) const ALL: [Self; Self::DiskFull as usize + 1] = [
        Self::InvalidJson,
        Self::InvalidRequest,
        Self::InvalidQuery,
        Self::InvalidMultipart,
        Self::UnknownCursor,
        Self::RequestTimeout,
        Self::RouteNotFound,
        Self::FileNotFound,
        Self::ModelNotFound,
        Self::ReferenceListNotFound,
        Self::JobNotFound,
        Self::CheckpointNotFound,
        Self::KeyNotFound,
        Self::ExportNotFound,
        Self::UploadNotFound,
        Self::WebhookNotFound,
        Self::DeliveryNotFound,
        Self::MethodNotAllowed,
        Self::IllegalTransition,
        Self::NotReady,
        Self::TooManyWaiting,
        Self::DiskLimit,
        Self::AlreadyExists,
        Self::InUse,
        Self::TooMany,
        Self::UploadEnded,
        Self::InProgress,
        Self::KeyReused,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::RangeNotSatisfiable,
        Self::Unauthenticated,
        Self::InsufficientScope,
        Self::AdminsOnly,
        Self::NotOwner,
        Self::RateLimited,
        Self::TooManyStreams,
        Self::PathModelsDisabled,
        Self::RemoteModelsDisabled,
        Self::WebhookHostNotAllowed,
        Self::WebhookUnreachable,
        Self::InspectionFailed,
        Self::InspectionTimeout,
        Self::Internal,
        Self::Overloaded,
        Self::Unready,
        Self::DiskFull,
    ];

    /// The table: code, status, title. Also printed in the API document.
    pub(super) const fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidJson => ("invalid_json", S::BAD_REQUEST, "The body is not JSON"),
            Self::InvalidRequest => ("invalid_request", S::BAD_REQUEST, "The request is not valid"),
            Self::InvalidQuery => ("invalid_query", S::BAD_REQUEST, "A query parameter is not valid"),
            Self::InvalidMultipart => ("invalid_multipart", S::BAD_REQUEST, "The body is not a multipart form"),
            Self::UnknownCursor => ("unknown_cursor", S::BAD_REQUEST, "The cursor names nothing"),
            Self::Unauthenticated => ("unauthenticated", S::UNAUTHORIZED, "The key is missing or does not work"),
            Self::InsufficientScope => ("insufficient_scope", S::FORBIDDEN, "The key does not allow it"),
            Self::AdminsOnly => ("admins_only", S::FORBIDDEN, "Only an admin may do this"),
            Self::NotOwner => ("not_owner", S::FORBIDDEN, "It belongs to somebody else"),
            Self::RateLimited => ("rate_limited", S::TOO_MANY_REQUESTS, "Too many requests"),
            Self::TooManyStreams => ("too_many_streams", S::TOO_MANY_REQUESTS, "Too many streams"),
            Self::PathModelsDisabled => ("path_models_disabled", S::FORBIDDEN, "Local models may not be added"),
            Self::RemoteModelsDisabled => ("remote_models_disabled", S::FORBIDDEN, "This server may not call that one"),
            Self::WebhookHostNotAllowed => {
                ("webhook_host_not_allowed", S::FORBIDDEN, "This server may not call that one")
            }
            Self::RouteNotFound => ("route_not_found", S::NOT_FOUND, "There is nothing at this address"),
            Self::FileNotFound => ("file_not_found", S::NOT_FOUND, "There is no such file"),
            Self::ModelNotFound => ("model_not_found", S::NOT_FOUND, "There is no such model"),
            Self::ReferenceListNotFound => {
                ("reference_list_not_found", S::NOT_FOUND, "There is no such reference list")
            }
            Self::JobNotFound => ("job_not_found", S::NOT_FOUND, "There is no such job"),
            Self::CheckpointNotFound => ("checkpoint_not_found", S::NOT_FOUND, "There is no such checkpoint"),
            Self::ExportNotFound => ("export_not_found", S::NOT_FOUND, "There is no such export"),
            Self::UploadNotFound => ("upload_not_found", S::NOT_FOUND, "There is no such upload"),
            Self::WebhookNotFound => ("webhook_not_found", S::NOT_FOUND, "There is no such webhook"),
            Self::DeliveryNotFound => ("delivery_not_found", S::NOT_FOUND, "There is no such delivery"),
            Self::KeyNotFound => ("key_not_found", S::NOT_FOUND, "There is no such key"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", S::METHOD_NOT_ALLOWED, "This address does not know the method")
            }
            Self::RequestTimeout => ("request_timeout", S::REQUEST_TIMEOUT, "The request took too long to arrive"),
            Self::IllegalTransition => ("illegal_transition", S::CONFLICT, "The job's status does not allow it"),
            Self::NotReady => ("not_ready", S::CONFLICT, "It is not ready yet"),
            Self::TooManyWaiting => ("too_many_waiting", S::CONFLICT, "As many jobs wait as one user may have"),
            Self::DiskLimit => ("disk_limit", S::CONFLICT, "As much is on disk as one user may have"),
            Self::AlreadyExists => ("already_exists", S::CONFLICT, "The name is taken"),
            Self::InUse => ("in_use", S::CONFLICT, "Something still uses it"),
            Self::TooMany => ("too_many", S::CONFLICT, "There are as many as there may be"),
            Self::UploadEnded => ("upload_ended", S::CONFLICT, "The upload takes no more parts"),
            Self::KeyReused => {
                ("idempotency_key_reused", S::UNPROCESSABLE_ENTITY, "The key belongs to another request")
            }
            Self::InProgress => ("in_progress", S::CONFLICT, "It is being worked on"),
            Self::BodyTooLarge => ("body_too_large", S::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE, "The content type is not supported")
            }
            Self::RangeNotSatisfiable => {
                ("range_not_satisfiable", S::RANGE_NOT_SATISFIABLE, "The range lies outside the file")
            }
            Self::WebhookUnreachable => ("webhook_unreachable", S::UNPROCESSABLE_ENTITY, "The webhook does not answer"),
            Self::InspectionFailed => ("inspection_failed", S::UNPROCESSABLE_ENTITY, "The question cannot be answered"),
            Self::InspectionTimeout => ("inspection_timeout", S::GATEWAY_TIMEOUT, "There was no answer in time"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "The server failed"),
            Self::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE, "The server is busy"),
            Self::Unready => ("unready", S::SERVICE_UNAVAILABLE, "The server cannot work"),
            Self::DiskFull => ("disk_full", S::INSUFFICIENT_STORAGE, "The server's disk is full"),
        }
    }

    /// The word on the wire.
    pub(super) fn as_str(self) -> &'static str {
        self.row().0
    }

    /// What it means, in words.
    pub(super) fn title(self) -> &'static str {
        self.row().2
    }

    /// The HTTP status.
    pub(super) fn status(self) -> StatusCode {
        self.row().1
    }

    /// The code for something that does not exist, by its kind in words.
    pub(super) fn not_found(kind: &str) -> Self {
        match kind {
            "file" => Self::FileNotFound,
            "model" => Self::ModelNotFound,
            "reference list" => Self::ReferenceListNotFound,
            "checkpoint" => Self::CheckpointNotFound,
            "key" => Self::KeyNotFound,
            "export" => Self::ExportNotFound,
            "upload" => Self::UploadNotFound,
            "webhook" => Self::WebhookNotFound,
            "delivery" | "webhook event" => Self::DeliveryNotFound,
            _ => Self::JobNotFound,
        }
    }
}
