//! Clipped Trust-Region Optimization: keeps the extra references near the base reference (CTRO, arXiv 2405.16388).

use super::SequenceLogps;
use crate::domain::Sides;

/// Radii that sum to `epsilon`: `ε(y) = ε·|b(y)| / (|b(chosen)| + |b(rejected)|)`, where `b(y)` is the mean of the
/// references' log-probabilities of y. The less likely completion gets the wider band.
///
/// The authors' code has two references; the mean over all of them is our reading for more.
pub(super) fn adaptive_radii(epsilon: f64, references: &[SequenceLogps]) -> Sides<f64> {
    let n = references.len() as f64;
    let chosen = (references.iter().map(|r| r.chosen).sum::<f64>() / n).abs();
    let rejected = (references.iter().map(|r| r.rejected).sum::<f64>() / n).abs();
    let sum = chosen + rejected;
    if sum > 0.0 {
        Sides { chosen: epsilon * chosen / sum, rejected: epsilon * rejected / sum }
    } else {
        Sides { chosen: epsilon / 2.0, rejected: epsilon / 2.0 }
    }
}

/// Moves every extra reference into the band `[(1+ε)·base, (1−ε)·base]` of its side; the base stays where it is.
pub(super) fn into_region(references: &[SequenceLogps], radii: Sides<f64>) -> (Vec<SequenceLogps>, Vec<Sides<bool>>) {
    let Some(base) = references.first().copied() else { return (Vec::new(), Vec::new()) };
    let mut moved = Vec::with_capacity(references.len());
    let mut clipped = Vec::with_capacity(references.len());
    for (index, reference) in references.iter().enumerate() {
        let inside = if index == 0 {
            base
        } else {
            SequenceLogps {
                chosen: into_band(reference.chosen, base.chosen, radii.chosen),
                rejected: into_band(reference.rejected, base.rejected, radii.rejected),
            }
        };
        clipped
            .push(Sides { chosen: inside.chosen != reference.chosen, rejected: inside.rejected != reference.rejected });
        moved.push(inside);
    }
    (moved, clipped)
}

/// Rounding can make a sure completion's log-probability a little positive, which would turn the band's ends round;
/// `f64::clamp` panics on that.
fn into_band(logp: f64, base: f64, radius: f64) -> f64 {
    let (one_end, other_end) = ((1.0 + radius) * base, (1.0 - radius) * base);
    logp.clamp(one_end.min(other_end), one_end.max(other_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_likely_side_gets_the_wider_band() {
        let references =
            [SequenceLogps { chosen: -42.0, rejected: -50.0 }, SequenceLogps { chosen: -44.0, rejected: -41.0 }];
        let radii = adaptive_radii(0.1, &references);
        assert!((radii.chosen - 0.048_588).abs() < 1e-6 && (radii.rejected - 0.051_412).abs() < 1e-6, "{radii:?}");
        let (moved, clipped) = into_region(&references, radii);
        assert_eq!(moved[0], references[0]);
        assert_eq!(moved[1].chosen, -44.0);
        assert!((moved[1].rejected - -47.429_379).abs() < 1e-6, "{moved:?}");
        assert_eq!(clipped, [Sides::default(), Sides { chosen: false, rejected: true }]);
    }

    #[test]
    fn sure_completions_have_a_region_too() {
        let zero = SequenceLogps { chosen: 0.0, rejected: 0.0 };
        assert_eq!(adaptive_radii(0.1, &[zero]), Sides { chosen: 0.05, rejected: 0.05 });
        let above = [SequenceLogps { chosen: 1e-12, rejected: 0.0 }, zero];
        assert_eq!(into_region(&above, Sides { chosen: 0.5, rejected: 0.5 }).0[1].chosen, 5e-13);
    }
}
