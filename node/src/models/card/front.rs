//! The front matter of a model card: where it lies in the file, and the keys of it that are wanted.
//!
//! YAML is read event by event, and only what is wanted is kept. Aliases are never followed and nesting is counted, so that a
//! card costs no more than the bytes that it is written with.

use std::collections::BTreeSet;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

/// Bytes of the front matter. Cards that list the results of a thousand evaluations have a few hundred KiB.
pub(super) const FRONT_BYTES_MAX: usize = 1024 * 1024;

/// Lists and mappings inside each other in a value that is wanted. The deepest that is read has three.
const DEPTH_MAX: usize = 8;

/// Words, lists and mappings in all values that are wanted. A card that names every language twice has about a thousand.
const NODES_MAX: usize = 4096;

/// The line that begins and ends front matter.
const FENCE: &[u8] = b"---";

/// Where the front matter of a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front<'a> {
    /// What stands between the two lines.
    pub(super) yaml: &'a str,
    /// Lines of the file before it.
    pub(super) lines_before: usize,
    /// Bytes of the file up to the first one after the front matter.
    pub(super) body_at: usize,
}

/// What front matter holds.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// The wanted keys that are there, in the order of the file.
    pub(super) wanted: Vec<(String, Node)>,
    /// Every key of the whole: its name, and the number of its line in the YAML, the first being 0.
    pub(super) keys: Vec<(String, usize)>,
    /// Whether each key begins a line, so that others can be put between them.
    pub(super) in_lines: bool,
}

/// A value, and its line in the file, the first being 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A plain nothing, `~` or `null`.
    Nothing,
    Word(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// `*name`: what it stands for is not looked up.
    Alias,
}

/// Why front matter cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontError {
    #[error("it begins with a line `---`, and no such line ends its front matter; add it")]
    Unclosed,
    #[error("its front matter has more than {FRONT_BYTES_MAX} bytes")]
    TooLong,
    #[error("its front matter is not UTF-8")]
    NotText,
    #[error("line {line}: {why}")]
    Yaml { line: usize, why: String },
    #[error("line {line}: the front matter is not a list of keys with values, such as `license: apache-2.0`")]
    NotKeys { line: usize },
    #[error("line {line}: a key is not a word")]
    Key { line: usize },
    #[error("line {line}: `{key}` is there twice")]
    Twice { line: usize, key: String },
    #[error("line {line}: lists and keys are nested more than {DEPTH_MAX} deep")]
    Deep { line: usize },
    #[error("line {line}: there are more than {NODES_MAX} words, lists and keys")]
    Many { line: usize },
}

/// Finds the front matter at the beginning of a file; none where the file does not begin with a line `---`. As the Hugging
/// Face client has it: blanks may come before, and the two lines have nothing else on them.
///
/// # Errors
/// It does not end, is too long, or is not text.
pub(super) fn cut(file: &[u8]) -> Result<Option<Front<'_>>, FrontError> {
    let without_mark = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let text = without_mark.trim_ascii_start();
    let mut at = file.len().saturating_sub(text.len());
    let mut lines_before = newlines(file.get(..at).unwrap_or_default());
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let Some(first) = lines.next().filter(|line| line.trim_ascii_end() == FENCE) else { return Ok(None) };
    at = at.saturating_add(first.len());
    lines_before = lines_before.saturating_add(1);
    let begin = at;
    for line in lines {
        let end = at;
        at = at.saturating_add(line.len());
        if end.saturating_sub(begin) > FRONT_BYTES_MAX {
            return Err(FrontError::TooLong);
        }
        if line.trim_ascii_end() == FENCE {
            let yaml = std::str::from_utf8(file.get(begin..end).unwrap_or_default()).map_err(|_| FrontError::NotText)?;
            return Ok(Some(Front { yaml, lines_before, body_at: at }));
        }
    }
    if at.saturating_sub(begin) > FRONT_BYTES_MAX { Err(FrontError::TooLong) } else { Err(FrontError::Unclosed) }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

impl Front<'_> {
    /// Reads the keys that are wanted. What other keys hold is not looked at, but has to be YAML.
    ///
    /// # Errors
    /// The first thing that is no YAML, or beyond the bounds.
    pub(super) fn fields(&self, wanted: &[&str]) -> Result<Fields, FrontError> {
        let mut reading = Reading { parser: Parser::new_from_str(self.yaml), lines_before: self.lines_before, nodes: 0 };
        reading.next()?;
        let mut fields = Fields { in_lines: true, ..Fields::default() };
        let (event, _) = reading.next()?;
        if event == Event::StreamEnd {
            return Ok(fields);
        }
        match reading.next()? {
            (Event::MappingStart(..), span) => {
                fields.in_lines = self.character(&span) != Some('{') && span.start.col() == 0;
                reading.fields(wanted, &mut fields)?;
            }
            (Event::Scalar(text, ScalarStyle::Plain, ..), _) if is_nothing(&text) => {}
            (_, span) => return Err(FrontError::NotKeys { line: reading.line(&span) }),
        }
        // The end of the document, and of all.
        reading.next()?;
        match reading.next()? {
            (Event::StreamEnd, _) => Ok(fields),
            (_, span) => Err(FrontError::NotKeys { line: reading.line(&span) }),
        }
    }

    /// The character at which something begins.
    fn character(&self, span: &Span) -> Option<char> {
        self.yaml.chars().nth(span.start.index())
    }
}

fn is_nothing(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

struct Reading<'a> {
    parser: Parser<'a, StrInput<'a>>,
    lines_before: usize,
    nodes: usize,
}

impl<'a> Reading<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), FrontError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.told(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn told(&self, error: &ScanError) -> FrontError {
        let line = self.lines_before.saturating_add(error.marker().line());
        FrontError::Yaml { line, why: error.info().to_owned() }
    }

    /// The line in the file.
    fn line(&self, span: &Span) -> usize {
        self.lines_before.saturating_add(span.start.line())
    }

    /// The keys of the whole, after its beginning.
    fn fields(&mut self, wanted: &[&str], fields: &mut Fields) -> Result<(), FrontError> {
        let mut known = BTreeSet::new();
        while let Some((key, span)) = self.key(&mut known)? {
            fields.keys.push((key.clone(), span.start.line().saturating_sub(1)));
            let (event, span) = self.next()?;
            if wanted.contains(&key.as_str()) {
                let node = self.node(event, &span, DEPTH_MAX)?;
                fields.wanted.push((key, node));
            } else {
                self.skip(&event)?;
            }
        }
        Ok(())
    }

    /// The next key of a mapping; none at its end.
    fn key(&mut self, known: &mut BTreeSet<String>) -> Result<Option<(String, Span)>, FrontError> {
        match self.next()? {
            (Event::MappingEnd, _) => Ok(None),
            (Event::Scalar(key, ..), span) => {
                if !known.insert(key.clone().into_owned()) {
                    let key = key.chars().take(64).collect();
                    return Err(FrontError::Twice { line: self.line(&span), key });
                }
                Ok(Some((key.into_owned(), span)))
            }
            (_, span) => Err(FrontError::Key { line: self.line(&span) }),
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, FrontError> {
        let line = self.line(span);
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > NODES_MAX {
            return Err(FrontError::Many { line });
        }
        let inner = || depth.checked_sub(1).ok_or(FrontError::Deep { line });
        let kind = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) if is_nothing(&text) => Kind::Nothing,
            Event::Scalar(text, ..) => Kind::Word(text.into_owned()),
            Event::Alias(_) => Kind::Alias,
            Event::SequenceStart(..) => {
                let (inner, mut items) = (inner()?, Vec::new());
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Kind::List(items),
                        (event, span) => items.push(self.node(event, &span, inner)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let (inner, mut known, mut entries) = (inner()?, BTreeSet::new(), Vec::new());
                while let Some((key, _)) = self.key(&mut known)? {
                    let (event, span) = self.next()?;
                    entries.push((key, self.node(event, &span, inner)?));
                }
                Kind::Map(entries)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(FrontError::NotKeys { line }),
        };
        Ok(Node { line, kind })
    }

    /// Reads a value, whatever it is, to its end.
    fn skip(&mut self, event: &Event<'_>) -> Result<(), FrontError> {
        let mut open = 0_usize;
        let mut count = |event: &Event<'_>| {
            match event {
                Event::SequenceStart(..) | Event::MappingStart(..) => open = open.saturating_add(1),
                Event::SequenceEnd | Event::MappingEnd => open = open.saturating_sub(1),
                _ => {}
            }
            open > 0
        };
        let mut more = count(event);
        while more {
            match self.next()? {
                (Event::StreamEnd, span) => return Err(FrontError::NotKeys { line: self.line(&span) }),
                (event, _) => more = count(&event),
            }
        }
        Ok(())
    }
}
