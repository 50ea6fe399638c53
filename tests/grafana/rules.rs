//! The rules files, as far as they are written here: one key a line, `expr` in one line or as a block.

use super::text;

/// A recording rule or an alert.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub alert: Option<String>,
    pub record: Option<String>,
    pub expr: String,
    /// A label of its own, of what is recorded.
    pub kind: String,
    pub severity: String,
    pub summary: String,
    pub description: String,
    pub runbook_url: String,
}

impl Rule {
    pub fn name(&self) -> &str {
        self.alert
            .as_deref()
            .or(self.record.as_deref())
            .unwrap_or("a rule without a name")
    }
}

pub fn alerts() -> Vec<Rule> {
    read("dashboards/prometheus/darkport.alerts.yml")
}

pub fn recorded() -> Vec<Rule> {
    read("dashboards/prometheus/darkport.rules.yml")
}

fn read(file: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    // The key whose block of deeper lines is being read, and how deep the key itself is.
    let mut block: Option<(String, usize)> = None;
    for line in text(file).lines() {
        let depth = line.len() - line.trim_start().len();
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if let Some((key, at)) = &block {
            if depth > *at {
                let rule = rules.last_mut().expect("a block belongs to a rule");
                rule.add(key, content);
                continue;
            }
            block = None;
        }
        let starts = content.strip_prefix("- ");
        let (key, value) = starts
            .unwrap_or(content)
            .split_once(':')
            .unwrap_or((content, ""));
        if starts.is_some() && matches!(key, "alert" | "record") {
            rules.push(Rule::default());
        }
        let value = value.trim();
        if matches!(value, "|" | ">-") {
            block = Some((key.to_owned(), depth));
        } else if let Some(rule) = rules.last_mut() {
            rule.add(key, value);
        }
    }
    assert!(!rules.is_empty(), "{file} has no rules");
    rules
}

impl Rule {
    fn add(&mut self, key: &str, more: &str) {
        let field = match key {
            "alert" => self.alert.get_or_insert_default(),
            "record" => self.record.get_or_insert_default(),
            "expr" => &mut self.expr,
            "kind" => &mut self.kind,
            "severity" => &mut self.severity,
            "summary" => &mut self.summary,
            "description" => &mut self.description,
            "runbook_url" => &mut self.runbook_url,
            _ => return,
        };
        if !field.is_empty() {
            field.push(' ');
        }
        field.push_str(more);
    }
}
