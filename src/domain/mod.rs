//! Plain records both halves share: ids, specs and their validation, statuses, events, metric names. No I/O.

mod dry_run;
mod event;
mod export;
mod extra_field;
mod failure;
mod file;
mod fitness;
mod hyperparameters;
mod ids;
mod inspection;
mod job;
mod method;
mod method_request;
pub mod metric;
mod model;
mod objective;
mod problem;
mod reference_list;
mod reference_score;
mod remote;
mod run_spec;
mod scores_summary;
mod sides;
mod target_module;

pub use dry_run::{
    DatasetOutlook, DiskEstimate, DryRun, DryRunPhase, DryRunSpec, FileOutlook, LengthBin, Lengths, MemoryEstimate,
    MemoryPhase, ScoringTime, TimeEstimate, Warning, WarningCode,
};
pub use event::{CheckpointSummary, EvaluationPhase, EventRecord, Level, Phase, RunEvent};
pub use export::ExportDtype;
pub use extra_field::{ExtraField, FieldSummary};
pub use failure::{Failure, FailureCode};
pub use file::{DatasetFormat, DatasetReport, FilePurpose, FileRecord, FileStatus};
pub use fitness::{KeptCount, ReferenceFitness, ReferenceRole, SampleFitness, TextFitness};
pub use hyperparameters::{
    Auto, AutoWord, Dtype, Hyperparameters, HyperparametersRequest, Lora, LoraRequest, LrSchedule, Truncation,
};
pub use ids::{CheckpointId, EventId, FileId, InspectionId, InvalidId, JobId, ModelId, ReferenceListId, RunId};
pub use inspection::{InspectSpec, Inspection, Preview, PreviewSpec, PreviewToken, Question};
pub use job::{Evaluation, EvaluationPair, IllegalTransition, Job, JobRequest, JobSpec, JobStatus};
pub use method::{HpoSettings, Method, MethodKind, ModpoSettings, SelmSettings, SpoSettings, TokenLevelSettings};
pub use method_request::{
    DpoRequest, HpoRequest, MethodRequest, ModpoRequest, MrpoRequest, ReferencesRequest, SelmRequest, SpoRequest,
    TokenLevelRequest,
};
pub use model::{InvalidSource, ModelInfo, ModelLocation, ModelRecord, ModelSource, ModelStatus, WeightsFormat};
pub use objective::{Clip, Losses, Mix, ObjectiveSpec, PairLoss, WeightConvention, Weighting};
pub use problem::{Problem, Problems};
pub use reference_list::{MAX_REFERENCES, Reference, ReferenceList, validate_references};
pub use reference_score::{ReferenceScore, ScoreKey, ScorePrecision, ScoringCount};
pub use remote::{AllowedRemotes, RemoteDialect, RemoteModel, RemoteRecord, RemoteTokenizer};
pub use run_spec::{RegisterSpec, ResolvedReference, RunSpec, TrainSpec};
pub use scores_summary::ScoresSummary;
pub use sides::Sides;
pub use target_module::{TargetChoice, TargetModule, TargetModules};
