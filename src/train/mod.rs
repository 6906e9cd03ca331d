//! The training loop, in one place to read, and what it needs: optimizer, schedule, order.

mod optimizer;
mod order;
mod pairs;
mod schedule;
mod step;
mod weigher;

pub use optimizer::{AdamW, AdamWSettings};
pub use order::{epoch_order, subset};
pub use pairs::{ReferenceResponse, TrainingPair, micro_batches};
pub use schedule::{Plan, learning_rate};
pub use step::{Policy, StepError, evaluate_pairs, training_step};
pub use weigher::Weigher;
