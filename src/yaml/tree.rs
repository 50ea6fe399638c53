//! YAML text → a small tree in which everything has its place.
//!
//! serde's derive stops at the first mistake and has lost the text by then; a tree lets the decoder name all of them. It
//! knows YAML and nothing of what a configuration holds. Scalars stay text, so that `on`, `0x10` or `1e3` mean what they
//! say. What a file may unfold to is bounded, whatever its aliases do.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

/// How deep collections may be nested. A configuration needs five.
const MAX_DEPTH: usize = 32;

/// What the tree may weigh: the bytes of all texts and [`NODE_WEIGHT`] a node, aliases unfolded. Twice what the largest
/// file can hold.
const MAX_WEIGHT: usize = 2 * 1024 * 1024;
const NODE_WEIGHT: usize = 8;

/// A place in the text, both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Place {
    /// Where a file begins.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

impl From<&Marker> for Place {
    fn from(marker: &Marker) -> Self {
        Self {
            line: marker.line(),
            column: marker.col() + 1,
        }
    }
}

/// A value and where it stands. An alias stands where it is used.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing: `key:` without a value, or `null`.
    Null,
    /// A text, quoted or not.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file, with keys that may be repeated.
    Mapping(Vec<(Node, Node)>),
}

/// Why a text is no tree. The first such mistake hides all that follow.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Reads one document; `None` where there is none.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, Fault> {
    Builder::new(text).document()
}

struct Builder<'input> {
    events: Parser<'input, StrInput<'input>>,
    /// Anchored nodes that are complete, with their weight.
    anchors: HashMap<usize, (Node, usize)>,
    weight: usize,
}

impl<'input> Builder<'input> {
    fn new(text: &'input str) -> Self {
        let options = granit_parser::options! {
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        Self {
            events: Parser::new_from_str_with_options(text, options),
            anchors: HashMap::new(),
            weight: 0,
        }
    }

    fn document(mut self) -> Result<Option<Node>, Fault> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(fault(
                        &span.start,
                        "a second document begins here: a file holds one configuration",
                    ));
                }
                Event::DocumentStart(..) => {}
                event => root = Some(self.node(event, &span, 0)?),
            }
        }
        Ok(root)
    }

    fn next(&mut self) -> Result<Option<(Event<'input>, Span)>, Fault> {
        self.events
            .next()
            .transpose()
            .map_err(|error| Fault::from(&error))
    }

    /// The next event inside a collection. The parser closes what it opens, or fails; the end of its events is guarded
    /// against all the same.
    fn inside(&mut self, opened: &Span) -> Result<(Event<'input>, Span), Fault> {
        self.next()?
            .ok_or_else(|| fault(&opened.start, "what is opened here is not closed"))
    }

    fn node(&mut self, event: Event<'input>, span: &Span, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DEPTH {
            return Err(fault(&span.start, TOO_DEEP));
        }
        if event.tag().is_some() {
            return Err(fault(
                span.tag_start.as_ref().unwrap_or(&span.start),
                "a tag has no meaning here: leave the word with the ! out, or put it in quotes",
            ));
        }
        let before = self.weight;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                self.weigh(NODE_WEIGHT + text.len(), span)?;
                let is_null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null {
                    Value::Null
                } else {
                    Value::Text(text.into_owned())
                };
                (value, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(span, depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(span, depth)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, span),
            _ => return Err(fault(&span.start, "a value is missing here")),
        };
        let node = Node {
            place: Place::from(&span.start),
            value,
        };
        if anchor != 0 {
            // The copy kept for aliases is paid for like one in the tree.
            let weight = self.weight - before;
            self.weigh(weight, span)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        Ok(node)
    }

    fn list(&mut self, opened: &Span, depth: usize) -> Result<Value, Fault> {
        self.weigh(NODE_WEIGHT, opened)?;
        let mut items = Vec::new();
        loop {
            match self.inside(opened)? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, opened: &Span, depth: usize) -> Result<Value, Fault> {
        self.weigh(NODE_WEIGHT, opened)?;
        let mut pairs = Vec::new();
        loop {
            let key = match self.inside(opened)? {
                (Event::MappingEnd, _) => return Ok(Value::Mapping(pairs)),
                (event, span) => self.node(event, &span, depth + 1)?,
            };
            let (event, span) = self.inside(opened)?;
            let value = self.node(event, &span, depth + 1)?;
            pairs.push((key, value));
        }
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Node, Fault> {
        let Some((node, weight)) = self.anchors.get(&anchor) else {
            return Err(fault(&span.start, "this alias stands inside what it names"));
        };
        let (value, weight) = (node.value.clone(), *weight);
        self.weigh(weight, span)?;
        Ok(Node {
            place: Place::from(&span.start),
            value,
        })
    }

    fn weigh(&mut self, weight: usize, span: &Span) -> Result<(), Fault> {
        self.weight += weight;
        if self.weight > MAX_WEIGHT {
            return Err(fault(
                &span.start,
                "the file unfolds to more than a configuration can need: are there aliases of aliases, or ports listed \
                 one by one that could be ranges?",
            ));
        }
        Ok(())
    }
}

const TOO_DEEP: &str = "nested deeper than anything in a configuration";

fn fault(marker: &Marker, message: &str) -> Fault {
    Fault {
        place: Place::from(marker),
        message: message.to_owned(),
    }
}

impl From<&ScanError> for Fault {
    fn from(error: &ScanError) -> Self {
        fault(error.marker(), &explanation(error.kind()))
    }
}

/// What the parser found, with the cure where the usual reason is known.
fn explanation(kind: &ErrorKind) -> String {
    let cure = match kind {
        ErrorKind::RecursionLimitExceeded => return TOO_DEEP.to_owned(),
        ErrorKind::UnknownAnchor | ErrorKind::MissingAnchorOrAliasName => {
            return "a word that begins with * or & is an alias or an anchor in YAML: put a pattern in quotes, as in \"*\""
                .to_owned();
        }
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar => ": indent with spaces, not with tabs",
        ErrorKind::MappingValueNotAllowed
        | ErrorKind::InvalidColonPlacement
        | ErrorKind::InvalidMappingValueWhitespace => {
            ": check the indentation, that brackets are closed, and that a text with a colon in it stands in quotes"
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::InvalidIndentation
        | ErrorKind::SimpleKeyExpected => ": check the indentation, and the colon after each key",
        _ => "",
    };
    format!("not valid YAML: {kind}{cure}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(text: &str) -> String {
        let fault = parse(text).expect_err(text);
        format!(
            "{}:{}: {}",
            fault.place.line, fault.place.column, fault.message
        )
    }

    fn root(text: &str) -> Node {
        parse(text).unwrap_or_else(|f| panic!("{f:?}")).unwrap()
    }

    #[test]
    fn every_value_has_its_place() {
        let Value::Mapping(pairs) = root("a: x\nbé:\n  - 'on'\n  - [0x10, ~]\n").value else {
            panic!("a mapping");
        };
        let (key, list) = &pairs[1];
        assert_eq!(key.place, Place { line: 2, column: 1 });
        let Value::List(items) = &list.value else {
            panic!("a list");
        };
        assert_eq!(items[0].place, Place { line: 3, column: 5 });
        assert!(matches!(&items[0].value, Value::Text(text) if text == "on"));
        let Value::List(items) = &items[1].value else {
            panic!("a list");
        };
        assert!(matches!(&items[0].value, Value::Text(text) if text == "0x10"));
        assert!(matches!(items[1].value, Value::Null));
    }

    #[test]
    fn an_alias_stands_where_it_is_used() {
        let Value::Mapping(pairs) = root("a: &p [tcp]\nb: *p\n").value else {
            panic!("a mapping");
        };
        assert_eq!(pairs[1].1.place, Place { line: 2, column: 4 });
        assert!(matches!(&pairs[1].1.value, Value::List(items) if items.len() == 1));
    }

    #[test]
    fn nothing_is_no_document() {
        for text in ["", "\n\n", "# a comment\n"] {
            assert!(parse(text).unwrap().is_none(), "{text:?}");
        }
    }

    #[test]
    fn aliases_of_aliases_are_bounded() {
        let mut bomb = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..30 {
            let below = level - 1;
            bomb += &format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{below}"); 9].join(", ")
            );
        }
        assert!(message(&bomb).contains("aliases of aliases"));
        let long = format!(
            "a: &a {}\nb: [{}]\n",
            "x".repeat(100_000),
            vec!["*a"; 1000].join(", ")
        );
        assert!(message(&long).contains("aliases of aliases"));
    }

    #[test]
    fn an_anchor_cannot_hold_itself() {
        assert_eq!(
            message("a: &a [*a]"),
            "1:8: this alias stands inside what it names"
        );
    }

    #[test]
    fn depth_is_bounded() {
        assert!(message(&"[".repeat(100_000)).contains("nested deeper"));
        assert!(message(&"- ".repeat(100_000)).contains("nested deeper"));
        assert!(message(&"{a: ".repeat(1000)).contains("nested deeper"));
    }

    #[test]
    fn an_unquoted_star_is_explained() {
        for text in ["process: *\n", "process: *.service\n", "process: [*, a]\n"] {
            assert!(message(text).contains("in quotes"), "{}", message(text));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([ \\n\\t:,\\[\\]{}&*!|>'\"%@#a~-]|\\PC){0,80}") {
            let _ = parse(&text);
        }
    }
}
