//! Log-probabilities from a server with OpenAI's completions API: text goes out, each token's log-probability comes back.
//!
//! No token ids are sent, and the server's tokens are its own. The log-probability of a completion is that of prompt and
//! completion together less that of the prompt alone, log p(y|x) = log p(xy) - log p(x): both are asked, and what the two
//! have in common cancels. So nobody has to find the seam, and a token that lies across it counts in full as one of the completion.

mod answer;
mod client;
mod probe;

pub use answer::{Tokens, between};
pub use client::{Limits, Remote, RemoteError};
pub use probe::probe;
