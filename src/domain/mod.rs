//! Plain records both halves share: ids, specs and their validation, statuses, events, metric names. No I/O.

mod address;
mod auto;
mod dataset_format;
mod dataset_statistics;
mod delivery;
mod device_memory;
mod disk;
mod dry_run;
mod event;
mod export;
mod extra_field;
mod failure;
mod file;
mod fitness;
mod hashed_file;
mod hyperparameters;
mod ids;
mod inspection;
mod job;
mod job_request;
mod job_spec;
mod job_status;
mod lora;
mod memory;
mod method;
mod method_request;
pub mod metric;
mod model;
mod objective;
mod overlap;
mod person;
mod problem;
mod queue;
mod range;
mod reference_list;
mod reference_score;
mod remote;
mod retention;
mod run_spec;
mod scores_summary;
mod sides;
mod target_module;
mod upload;
mod webhook;

pub use address::{AllowedHosts, HttpAddress, InvalidAddress};
pub use auto::{Auto, AutoWord};
pub use dataset_format::{Compression, Container, DatasetFormat, UnknownFormat};
pub use dataset_statistics::{Bin, DatasetStatistics, Distribution, Lengths, Sample};
pub use delivery::{Attempt, Delivery, DeliveryStatus, DueDelivery, WebhookEvent, WebhookEventType};
pub use device_memory::{DeviceMemory, JobMemory, ReadMemory};
pub use disk::{CheckpointBytes, disk_bytes_after, needed_disk_bytes};
pub use dry_run::{
    DatasetOutlook, DiskEstimate, DryRun, DryRunPhase, DryRunSpec, FileOutlook, MemoryEstimate, MemoryPhase,
    ScoringTime, TimeEstimate, TokenLengths, Warning, WarningCode,
};
pub use event::{CheckpointSummary, EvaluationPhase, EventRecord, Level, Phase, RunEvent};
pub use export::{ExportDtype, ExportFormat, ExportRecord, ExportSpec, ExportStatus, ExportedFiles};
pub use extra_field::{ExtraField, FieldSummary};
pub use failure::{Failure, FailureCode};
pub use file::{DatasetReport, FilePurpose, FileRecord, FileStatus};
pub use fitness::{KeptCount, ReferenceFitness, ReferenceRole, SampleFitness, TextFitness};
pub use hashed_file::HashedFile;
pub use hyperparameters::{Dtype, Hyperparameters, HyperparametersRequest, LrSchedule, Truncation};
pub use ids::{
    CheckpointId, EventId, ExportId, FileId, InspectionId, InvalidId, JobId, KeyId, ModelId, PartId, ReferenceListId,
    RunId, UploadId, WebhookEventId, WebhookId,
};
pub use inspection::{InspectSpec, Inspection, Preview, PreviewSpec, PreviewToken, Question};
pub use job::{Evaluation, EvaluationPair, Job, Standing};
pub use job_request::JobRequest;
pub use job_spec::JobSpec;
pub use job_status::{IllegalTransition, JobStatus};
pub use lora::{Lora, LoraRequest};
pub use memory::needed_bytes;
pub use method::{HpoSettings, Method, MethodKind, ModpoSettings, SelmSettings, SpoSettings, TokenLevelSettings};
pub use method_request::{
    DpoRequest, HpoRequest, MethodRequest, ModpoRequest, MrpoRequest, ReferencesRequest, SelmRequest, SpoRequest,
    TokenLevelRequest,
};
pub use model::{InvalidSource, ModelInfo, ModelLocation, ModelRecord, ModelSource, ModelStatus, WeightsFormat};
pub use objective::{Clip, Losses, Mix, ObjectiveSpec, PairLoss, WeightConvention, Weighting};
pub use overlap::{Overlap, SharedPair, SharedPart};
pub use person::{ApiKey, Caller, NewKey, Ownership, Role, Scope, Secret, UserName, Viewer};
pub use problem::{Problem, Problems};
pub use queue::{Lane, Priority, Queue, QueueRules, RunningJob, WaitCode, WaitReason, Waiting};
pub use range::{Bound, Limit, Range, range_of};
pub use reference_list::{MAX_REFERENCES, Reference, ReferenceList, validate_references};
pub use reference_score::{ReferenceScore, ScoreKey, ScorePrecision, ScoringCount};
pub use remote::{RemoteDialect, RemoteModel, RemoteRecord, RemoteTokenizer};
pub use retention::{BestBy, Retention, RetentionDefaults, RetentionRequest};
pub use run_spec::{RegisterSpec, ResolvedReference, RunSpec, TrainSpec};
pub use scores_summary::ScoresSummary;
pub use sides::Sides;
pub use target_module::{TargetChoice, TargetModule, TargetModules};
pub use upload::{PartRecord, UploadRecord, UploadStatus};
pub use webhook::{Disabled, Webhook, WebhookChange, WebhookSecret};
