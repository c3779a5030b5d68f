//! What a benchmark reports: rows of figures, ratios between them, one table, one object.

use serde_json::{Map, Value, json};

/// The outcome of one benchmark.
pub(crate) struct Report {
    name: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<f64>)>,
    ratios: Vec<(String, f64, Option<f64>)>,
    notes: Map<String, Value>,
}

impl Report {
    pub(crate) fn new(name: &'static str, columns: &[&'static str]) -> Self {
        Self { name, columns: columns.to_vec(), rows: Vec::new(), ratios: Vec::new(), notes: Map::new() }
    }

    /// One row; a figure that does not apply is NaN.
    pub(crate) fn row(&mut self, name: impl Into<String>, figures: &[f64]) {
        self.rows.push((name.into(), figures.to_vec()));
    }

    /// One ratio, with the bound that is wanted, if one is.
    pub(crate) fn ratio(&mut self, name: impl Into<String>, value: f64, wanted: Option<f64>) {
        self.ratios.push((name.into(), value, wanted));
    }

    /// Something else that the object says; a text is also printed.
    pub(crate) fn note(&mut self, name: &str, value: Value) {
        self.notes.insert(name.to_owned(), value);
    }

    /// For people.
    pub(crate) fn print(&self) {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        print!("{:<width$}", self.name);
        for column in &self.columns {
            print!("  {column:>16}");
        }
        println!();
        for (name, figures) in &self.rows {
            print!("{name:<width$}");
            for figure in figures {
                if figure.is_nan() { print!("  {:>16}", "-") } else { print!("  {figure:>16.1}") }
            }
            println!();
        }
        if !self.ratios.is_empty() {
            println!();
        }
        for (name, value, wanted) in &self.ratios {
            let wanted = wanted.map(|w| format!("  wanted <= {w:.2}")).unwrap_or_default();
            println!("{name:<40} {value:>6.3}{wanted}");
        }
        for text in self.notes.values().filter_map(Value::as_str) {
            println!("\n{text}");
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let figure = |f: &f64| if f.is_nan() { Value::Null } else { json!((f * 1000.0).round() / 1000.0) };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(name, figures)| {
                let mut row: Map<String, Value> =
                    self.columns.iter().zip(figures).map(|(c, f)| ((*c).to_owned(), figure(f))).collect();
                row.insert("name".to_owned(), json!(name));
                Value::Object(row)
            })
            .collect();
        let ratios: Map<String, Value> =
            self.ratios.iter().map(|(name, value, _)| (name.clone(), figure(value))).collect();
        let mut object = self.notes.clone();
        object.insert("schema_version".to_owned(), json!(1));
        object.insert("bench".to_owned(), json!(self.name));
        object.insert("rows".to_owned(), json!(rows));
        object.insert("ratios".to_owned(), Value::Object(ratios));
        Value::Object(object)
    }
}

/// The middle value; NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that `q` of all values do not exceed; NaN of nothing.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a short list"
    )]
    let at = ((sorted.len().saturating_sub(1)) as f64 * q).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
