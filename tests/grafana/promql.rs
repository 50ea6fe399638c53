//! The selectors of a PromQL expression.

use std::time::Duration;

use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr, VectorSelector};

/// A selector and what stands around it.
#[derive(Clone, Debug)]
pub struct Selector {
    pub metric: String,
    /// Label, operator, value.
    pub matchers: Vec<(String, String, String)>,
    /// The range, if it is a range selector.
    pub range: Option<Duration>,
    /// The function whose argument it is directly.
    pub function: Option<String>,
}

/// Parses the expression and gives every selector in it.
pub fn selectors(expression: &str) -> Result<Vec<Selector>, String> {
    let expression = parser::parse(expression).map_err(|error| format!("{error}: {expression}"))?;
    let mut found = Vec::new();
    collect(&expression, None, &mut found);
    Ok(found)
}

fn collect(expression: &Expr, function: Option<&str>, found: &mut Vec<Selector>) {
    match expression {
        Expr::VectorSelector(selector) => found.push(of(selector, None, function)),
        Expr::MatrixSelector(selector) => {
            found.push(of(&selector.vs, Some(selector.range), function));
        }
        Expr::Call(call) => {
            for argument in &call.args.args {
                collect(argument, Some(call.func.name), found);
            }
        }
        Expr::Aggregate(aggregate) => {
            collect(&aggregate.expr, None, found);
            if let Some(parameter) = &aggregate.param {
                collect(parameter, None, found);
            }
        }
        Expr::Binary(binary) => {
            collect(&binary.lhs, None, found);
            collect(&binary.rhs, None, found);
        }
        Expr::Paren(inner) => collect(&inner.expr, function, found),
        Expr::Unary(inner) => collect(&inner.expr, None, found),
        Expr::Subquery(inner) => collect(&inner.expr, None, found),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

fn of(selector: &VectorSelector, range: Option<Duration>, function: Option<&str>) -> Selector {
    Selector {
        metric: selector.name.clone().unwrap_or_default(),
        matchers: selector
            .matchers
            .matchers
            .iter()
            .map(|matcher| {
                let operator = match &matcher.op {
                    MatchOp::Equal => "=",
                    MatchOp::NotEqual => "!=",
                    MatchOp::Re(_) => "=~",
                    MatchOp::NotRe(_) => "!~",
                };
                (
                    matcher.name.clone(),
                    operator.to_owned(),
                    matcher.value.clone(),
                )
            })
            .collect(),
        range,
        function: function.map(str::to_owned),
    }
}
