//! The range of a setting: checked, said in words, and written into the API document, all from one place.

use std::fmt;

/// One end of a range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// There is none.
    Open,
    /// Up to this number, itself included.
    At(f64),
    /// Up to this number, itself not included.
    Beyond(f64),
}

/// The numbers that a setting may be. Never infinite and never not a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The lower end.
    pub min: Bound,
    /// The upper end.
    pub max: Bound,
}

/// A setting's name, as on the wire, and its range.
pub type Limit = (&'static str, Range);

impl Range {
    /// min ≤ x ≤ max.
    pub const fn between(min: f64, max: f64) -> Self {
        Self { min: Bound::At(min), max: Bound::At(max) }
    }

    /// min < x ≤ max.
    pub const fn above_to(min: f64, max: f64) -> Self {
        Self { min: Bound::Beyond(min), max: Bound::At(max) }
    }

    /// min ≤ x < max.
    pub const fn from_to_below(min: f64, max: f64) -> Self {
        Self { min: Bound::At(min), max: Bound::Beyond(max) }
    }

    /// min < x < max.
    pub const fn inside(min: f64, max: f64) -> Self {
        Self { min: Bound::Beyond(min), max: Bound::Beyond(max) }
    }

    /// min < x.
    pub const fn above(min: f64) -> Self {
        Self { min: Bound::Beyond(min), max: Bound::Open }
    }

    /// min ≤ x.
    pub const fn at_least(min: f64) -> Self {
        Self { min: Bound::At(min), max: Bound::Open }
    }

    /// Whether it holds `x`.
    pub fn contains(&self, x: f64) -> bool {
        let above = match self.min {
            Bound::Open => true,
            Bound::At(min) => x >= min,
            Bound::Beyond(min) => x > min,
        };
        let below = match self.max {
            Bound::Open => true,
            Bound::At(max) => x <= max,
            Bound::Beyond(max) => x < max,
        };
        x.is_finite() && above && below
    }
}

/// The range of a field in a table.
///
/// # Panics
/// If the table has none for it: that is a defect.
pub fn range_of(limits: &[Limit], field: &str) -> Range {
    limits.iter().find(|(name, _)| *name == field).expect("every checked field stands in its table").1
}

/// As in "must be …".
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Bound::At(min), Bound::At(max)) => return write!(f, "between {min} and {max}"),
            (Bound::Open, Bound::Open) => return f.write_str("a number"),
            _ => {}
        }
        match self.min {
            Bound::Open => {}
            Bound::At(min) => write!(f, "at least {min}")?,
            Bound::Beyond(min) => write!(f, "above {min}")?,
        }
        if self.min != Bound::Open && self.max != Bound::Open {
            f.write_str(" and ")?;
        }
        match self.max {
            Bound::Open => Ok(()),
            Bound::At(max) => write!(f, "at most {max}"),
            Bound::Beyond(max) => write!(f, "below {max}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_what_it_holds() {
        let cases = [
            (Range::between(1.0, 1_048_576.0), "between 1 and 1048576", [1.0, 1_048_576.0], [0.5, 1_048_577.0]),
            (Range::above_to(0.0, 1.0), "above 0 and at most 1", [1e-300, 1.0], [0.0, 1.1]),
            (Range::from_to_below(0.0, 0.5), "at least 0 and below 0.5", [0.0, 0.49], [-1e-9, 0.5]),
            (Range::inside(0.0, 1.0), "above 0 and below 1", [0.1, 0.9], [0.0, 1.0]),
            (Range::above(0.0), "above 0", [1e-9, 1e300], [0.0, f64::INFINITY]),
            (Range::at_least(1.0), "at least 1", [1.0, 9.0], [0.0, f64::NAN]),
        ];
        for (range, words, held, others) in cases {
            assert_eq!(range.to_string(), words);
            assert!(held.iter().all(|x| range.contains(*x)) && !others.iter().any(|x| range.contains(*x)), "{words}");
        }
    }
}
