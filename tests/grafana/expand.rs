//! Variables in a query, replaced as Grafana replaces them.

use std::collections::BTreeMap;

/// What a variable stands for.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// `All` of a variable with a value for it: that text as it is.
    All(String),
    /// One or several values; in a regular expression each is escaped, several become alternatives.
    Values(Vec<String>),
    /// A text that is put in as it is, such as a duration.
    Raw(String),
}

/// The variables of one moment.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, Chosen>);

impl Variables {
    /// The built-in ones for a time range in seconds, a step and a scrape interval.
    pub fn of_range(from: f64, to: f64, step: f64, scrape: f64) -> Self {
        let rate_interval = (step + scrape).max(4.0 * scrape);
        let mut variables = Self::default();
        for (name, value) in [
            ("__interval", format!("{}ms", (step * 1e3) as u64)),
            (
                "__rate_interval",
                format!("{}ms", (rate_interval * 1e3) as u64),
            ),
            ("__range", format!("{}s", (to - from) as u64)),
            ("__range_s", format!("{}", (to - from) as u64)),
            ("__from", format!("{}", (from * 1e3) as u64)),
            ("__to", format!("{}", (to * 1e3) as u64)),
        ] {
            variables.0.insert(name.to_owned(), Chosen::Raw(value));
        }
        variables
    }

    #[must_use]
    pub fn with(mut self, name: &str, chosen: Chosen) -> Self {
        self.0.insert(name.to_owned(), chosen);
        self
    }

    /// The query with every `$name`, `${name}` and `${name:format}` replaced. A variable that is not known is a defect.
    pub fn expand(&self, query: &str) -> String {
        let mut expanded = String::new();
        let mut rest = query;
        while let Some(start) = rest.find('$') {
            expanded.push_str(&rest[..start]);
            let (name, after) = name_at(&rest[start + 1..]);
            let chosen = self
                .0
                .get(name)
                .unwrap_or_else(|| panic!("variable {name:?} is not known: {query}"));
            expanded.push_str(&chosen.text());
            rest = after;
        }
        expanded.push_str(rest);
        expanded
    }
}

fn name_at(text: &str) -> (&str, &str) {
    if let Some(braced) = text.strip_prefix('{') {
        let (inside, after) = braced.split_once('}').expect("the brace is closed");
        return (inside.split(':').next().unwrap_or(inside), after);
    }
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    text.split_at(end)
}

impl Chosen {
    pub fn one(value: &str) -> Self {
        Self::Values(vec![value.to_owned()])
    }

    fn text(&self) -> String {
        match self {
            Self::All(text) | Self::Raw(text) => text.clone(),
            Self::Values(values) => match values.as_slice() {
                [value] => escaped(value),
                several => {
                    let several: Vec<_> = several.iter().map(|value| escaped(value)).collect();
                    format!("({})", several.join("|"))
                }
            },
        }
    }
}

/// As the Prometheus data source does for a variable that may have several values: what a regular expression gives a meaning to is
/// escaped, and the backslash once more, because it stands in a string.
fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        if r"\^$.*+?()[]{}|/".contains(c) && c != '/' {
            escaped.push_str(r"\\");
        }
        escaped.push(c);
    }
    escaped
}

#[test]
fn variables_expand_as_in_grafana() {
    let variables = Variables::of_range(1000.0, 4600.0, 15.0, 15.0)
        .with("job", Chosen::All(".+".to_owned()))
        .with(
            "instance",
            Chosen::Values(vec!["a:1".to_owned(), "b.c:2".to_owned()]),
        )
        .with("port", Chosen::one("80"));
    assert_eq!(
        variables.expand(r#"x{job=~"$job", i=~"${instance}", p="${port:raw}"}[$__rate_interval] @ $__from [$__range]"#),
        r#"x{job=~".+", i=~"(a:1|b\\.c:2)", p="80"}[60000ms] @ 1000000 [3600s]"#
    );
}
