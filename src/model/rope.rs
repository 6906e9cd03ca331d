//! Frequencies of rotary position embedding (RoPE, arXiv 2104.09864), and how they are stretched for long contexts.

use super::ModelError;

/// One set of frequencies.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base θ.
    pub theta: f64,
    /// Numbers of a head that are turned, from its first; even. With 0 nothing is.
    pub size: usize,
    /// Stretching.
    pub scaling: RopeScaling,
}

/// How the frequencies are stretched.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All by one factor (position interpolation, arXiv 2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies by a factor, high ones not, and a blend between.
    Llama3(Llama3),
}

/// The numbers of Llama 3.1's stretching.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3 {
    /// The factor of the low frequencies.
    pub factor: f64,
    /// Wavelengths above original length / this are low frequencies.
    pub low_freq_factor: f64,
    /// Wavelengths below original length / this are high frequencies.
    pub high_freq_factor: f64,
    /// Context length before stretching.
    pub original_length: f64,
}

impl Llama3 {
    /// A frequency after stretching.
    fn stretch(&self, f: f64) -> f64 {
        let Self { factor, low_freq_factor, high_freq_factor, original_length } = *self;
        let wavelength = 2.0 * std::f64::consts::PI / f;
        if wavelength > original_length / low_freq_factor {
            f / factor
        } else if wavelength < original_length / high_freq_factor {
            f
        } else {
            let smooth = (original_length / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
            (1.0 - smooth) * f / factor + smooth * f
        }
    }
}

impl Rope {
    /// The frequencies, half as many as numbers are turned, in f32 as transformers computes them; a single 0, which turns nothing,
    /// where none are.
    pub fn frequencies(&self) -> Vec<f32> {
        if self.size == 0 {
            return vec![0.0];
        }
        let plain = (0..self.size / 2).map(|i| {
            let exponent = (2 * i) as f32 / self.size as f32;
            1.0 / (self.theta as f32).powf(exponent)
        });
        match &self.scaling {
            RopeScaling::Default => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / *factor as f32).collect(),
            RopeScaling::Llama3(numbers) => plain.map(|f| numbers.stretch(f64::from(f)) as f32).collect(),
        }
    }

    /// What the frequencies are divided by, as a GGUF file holds Llama 3's stretching; `None` for any other.
    pub(super) fn divisors(&self) -> Option<Vec<f32>> {
        let RopeScaling::Llama3(numbers) = &self.scaling else { return None };
        let plain = Self { scaling: RopeScaling::Default, ..self.clone() }.frequencies();
        Some(plain.into_iter().map(f64::from).map(|f| (f / numbers.stretch(f)) as f32).collect())
    }

    /// The stretching whose divisors a GGUF file holds instead of its numbers (`rope_freqs.weight`): one of Llama 3's kind.
    pub(super) fn of_divisors(&self, divisors: &[f32]) -> Result<Llama3, ModelError> {
        let plain = Self { scaling: RopeScaling::Default, ..self.clone() }.frequencies();
        let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
        let is_it = |numbers: &Llama3| {
            plain.len() == divisors.len()
                && plain.iter().zip(divisors).all(|(f, divisor)| {
                    let expected = f64::from(*f) / numbers.stretch(f64::from(*f));
                    (expected / f64::from(*divisor) - 1.0).abs() < 1e-3
                })
        };
        // All of its releases have these two, and a length that is a power of two.
        let (low_freq_factor, high_freq_factor) = (1.0, 4.0);
        let lengths = (4..=20).map(|power| f64::from(1 << power));
        lengths
            .map(|original_length| Llama3 { factor, low_freq_factor, high_freq_factor, original_length })
            .find(is_it)
            .ok_or_else(|| ModelError::Unsupported("rope_freqs.weight is not stretching of Llama 3's kind".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_frequencies_and_divides_low_ones() {
        let numbers = Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_length: 8192.0 };
        let plain = Rope { theta: 500_000.0, size: 128, scaling: RopeScaling::Default };
        let scaled = Rope { scaling: RopeScaling::Llama3(numbers), ..plain.clone() };
        let (plain_f, scaled_f) = (plain.frequencies(), scaled.frequencies());
        assert_eq!(plain_f[0], scaled_f[0]);
        assert!((plain_f[63] / scaled_f[63] - 8.0).abs() < 1e-5);
        assert!(scaled_f.iter().zip(&plain_f).all(|(s, p)| *s <= *p && *s >= p / 8.001));
        let divisors: Vec<f32> = plain_f.iter().zip(&scaled_f).map(|(p, s)| p / s).collect();
        assert_eq!(plain.of_divisors(&divisors).expect("recognised"), numbers);
        assert!(plain.of_divisors(&[2.0; 64]).is_err());
        assert_eq!(plain.divisors(), None);
        assert_eq!(plain.of_divisors(&scaled.divisors().expect("some")).expect("recognised"), numbers);
    }
}
