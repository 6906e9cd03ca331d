//! Thompson sampling: one reference per step, drawn by how often it has helped (TSW, arXiv 2512.10040).

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Beta, Distribution};
use serde::{Deserialize, Serialize};

use super::weighting::one_hot;

/// A Beta distribution per reference, and what the next step is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bandit {
    /// Steps against each reference after which the accuracy rose, and the prior.
    a: Vec<f64>,
    /// Those after which it did not, and the prior.
    b: Vec<f64>,
    /// The accuracy measured last; none before the first.
    accuracy: Option<f64>,
}

impl Bandit {
    /// No step taken yet; every distribution is Beta(prior, prior).
    pub fn new(n_references: usize, prior: f64) -> Self {
        Self { a: vec![prior; n_references], b: vec![prior; n_references], accuracy: None }
    }

    /// Whether an accuracy has been measured.
    pub fn is_begun(&self) -> bool {
        self.accuracy.is_some()
    }

    /// The reference of the step after `n_done` steps: the largest of one draw per reference. A function of the seed, the
    /// step and what has been recorded.
    pub fn draw(&self, seed: u32, n_done: u64) -> usize {
        let mut rng = ChaCha8Rng::seed_from_u64(u64::from(seed));
        // A stream of its own: an epoch's order has its number.
        rng.set_stream(1 << 40 | n_done);
        let mut best = (0, f64::NEG_INFINITY);
        for (k, (a, b)) in self.a.iter().zip(&self.b).enumerate() {
            let draw = Beta::new(*a, *b).expect("counts above zero are parameters of a Beta distribution");
            let draw: f64 = draw.sample(&mut rng);
            if draw > best.1 {
                best = (k, draw);
            }
        }
        best.0
    }

    /// All weight on reference `k`.
    pub fn weights(&self, k: usize) -> Vec<f64> {
        one_hot(k, self.a.len())
    }

    /// Records the accuracy measured after a step against reference `k`, or before the first step.
    pub fn record(&mut self, k: Option<usize>, accuracy: f64) {
        if let (Some(k), Some(before)) = (k, self.accuracy) {
            let count = if accuracy > before { &mut self.a[k] } else { &mut self.b[k] };
            *count += 1.0;
        }
        self.accuracy = Some(accuracy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_that_helps_is_drawn_more_often() {
        let mut bandit = Bandit::new(3, 5.0);
        let n_of = |bandit: &Bandit, k| (0..300).filter(|step| bandit.draw(7, *step) == k).count();
        let before = n_of(&bandit, 1);
        assert!((60..140).contains(&before), "{before}: all the same at first");
        bandit.record(None, 0.0);
        for step in 1..=20 {
            bandit.record(Some(1), f64::from(step));
            bandit.record(Some(0), 0.0);
        }
        assert!(n_of(&bandit, 1) > 250, "{bandit:?}");
        assert_eq!(bandit.draw(7, 3), bandit.draw(7, 3));
        assert_eq!(bandit.weights(1), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn only_a_rise_counts_for_a_reference() {
        let mut bandit = Bandit::new(1, 5.0);
        assert!(!bandit.is_begun());
        for (k, accuracy) in [(None, 0.5), (Some(0), 0.5), (Some(0), 0.6), (Some(0), 0.4)] {
            bandit.record(k, accuracy);
        }
        assert_eq!((bandit.a[0], bandit.b[0]), (6.0, 7.0));
    }
}
