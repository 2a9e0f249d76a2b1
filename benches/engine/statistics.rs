//! Samples to figures, figures to JSON.

use serde_json::{Value, json};

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// what was measured
    pub value: f64,
    /// how fast the core was around it, see [`crate::speed`]
    pub speed: f64,
}

/// Measurements of one thing, in the order they were made.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The value below which `share` of the samples lie; NaN if there are none.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = ((sorted.len().max(1) - 1) as f64 * share).round() as usize;
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// `{"min", "best_decile", "median", "max", "count"}`; less is better.
    pub fn summary(&self) -> Value {
        json!({
            "min": round(self.quantile(0.0)),
            "best_decile": round(self.quantile(0.1)),
            "median": round(self.median()),
            "max": round(self.quantile(1.0)),
            "count": self.0.len(),
        })
    }

    /// The median of the quotients of neighbours in time: what disturbs both at once cancels out.
    pub fn ratio_to(&self, reference: &Samples) -> f64 {
        Samples(self.0.iter().zip(&reference.0).map(|(value, reference)| value / reference).collect())
            .median()
    }
}

/// To four significant digits or so.
pub fn round(value: f64) -> f64 {
    if !value.is_finite() || value == 0.0 {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// One finished case, as a line of JSON on the standard output; what is for people goes to the standard error.
pub fn report(case: &str, params: Value, value: f64, unit: &str, more: Value) {
    let mut line = json!({
        "case": case, "params": params, "value": round(value), "unit": unit,
        "reference": null, "reference_value": null, "ratio": null, "core": null,
    });
    if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
        line.extend(more);
    }
    println!("{line}");
}
