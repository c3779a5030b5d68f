//! The file that a person writes: rules, and tests of them.

use core::{fmt, ops::Range};

use identity::{
    Code, Name, Tag,
    limits::{
        POLICY_BYTES_MAX, POLICY_FILE_BYTES_MAX, POLICY_RULES_MAX, POLICY_SELECTORS_MAX, POLICY_TESTS_MAX,
    },
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    Decision, Policy, Subject,
    rule::{ANY, Doing, Rule, Selector, SelectorError},
    text::nearest,
};

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFile {
    /// The policy, which an admin signs.
    pub policy: Policy,
    /// What the policy is held to; never signed.
    pub tests: Vec<Test>,
}

/// What a policy must say to one action of one member on another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Where it begins, from 1.
    pub line: usize,
    from: Member,
    to: Member,
    action: Tag,
    allow: bool,
}

/// A test that the policy does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFailure<'a> {
    /// It.
    pub test: &'a Test,
    /// What the policy says instead.
    pub decision: Decision<'a>,
}

/// Why a text is no policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileError {
    /// A value of the wrong kind.
    BadValue {
        /// Where.
        line: usize,
        /// Of which setting.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// A selector or an action that is none.
    Selector {
        /// Where.
        line: usize,
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: SelectorError,
    },
    /// More than a policy holds.
    TooLarge {
        /// Of what.
        what: &'static str,
        /// Most allowed.
        max: usize,
        /// Given.
        got: usize,
    },
    /// Something stands twice.
    Twice {
        /// Where the second stands.
        line: usize,
        /// What.
        text: String,
    },
    /// A setting that this release does not know.
    UnknownKey {
        /// Where.
        line: usize,
        /// The setting as written.
        key: String,
        /// The one that is closest in spelling.
        nearest: &'static str,
    },
    /// It is not TOML.
    Unreadable {
        /// Where.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

/// A member as a test describes it: with exactly these, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Member {
    name: Option<Name>,
    roles: Vec<Tag>,
    labels: Vec<Tag>,
}

impl PolicyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`FileError`] for the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        limit("bytes in a policy file", POLICY_FILE_BYTES_MAX, text.len())?;
        let lines = Lines(text);
        let table = DeTable::parse(text).map_err(|why| FileError::Unreadable {
            line: lines.of(&why.span().unwrap_or_default()),
            why: why.message().to_owned(),
        })?;
        let mut file = Self::default();
        for (key, value) in table.get_ref() {
            match key.get_ref().as_ref() {
                RULE => file.policy = rules(lines, value)?,
                TEST => file.tests = tests(lines, value)?,
                _ => return Err(lines.unknown(key, &[RULE, TEST])),
            }
        }
        Ok(file)
    }

    /// The tests that the policy does not keep, in their order.
    pub fn failures(&self) -> impl Iterator<Item = TestFailure<'_>> {
        self.tests.iter().filter_map(|test| {
            let decision =
                self.policy.permits(&test.from.subject(), &test.to.subject(), test.action.as_str());
            (decision.is_allowed() != test.allow).then_some(TestFailure { test, decision })
        })
    }
}

fn rules(lines: Lines<'_>, value: &Spanned<DeValue<'_>>) -> Result<Policy, FileError> {
    let tables = lines.tables(RULE, value)?;
    limit("rules", POLICY_RULES_MAX, tables.len())?;
    let mut rules: Vec<Rule> = Vec::new();
    for (line, table) in tables {
        let (mut from, mut to, mut actions) = (None, None, None);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                FROM => from = Some(lines.set(FROM, value, &Selector::Any, str::parse)?),
                TO => to = Some(lines.set(TO, value, &Selector::Any, str::parse)?),
                ACTION => actions = Some(lines.set(ACTION, value, &Doing::Any, str::parse)?),
                _ => return Err(lines.unknown(key, &[FROM, TO, ACTION])),
            }
        }
        let missing = |key| FileError::BadValue { line, key, expected: SELECTORS };
        let rule = Rule {
            from: from.ok_or_else(|| missing(FROM))?,
            to: to.ok_or_else(|| missing(TO))?,
            actions: actions.ok_or_else(|| missing(ACTION))?,
        };
        if rules.contains(&rule) {
            return Err(FileError::Twice { line, text: format!("rule `{rule}`") });
        }
        rules.push(rule);
    }
    rules.sort();
    let policy = Policy { rules };
    limit("bytes in a policy", POLICY_BYTES_MAX, policy.encode().len())?;
    Ok(policy)
}

fn tests(lines: Lines<'_>, value: &Spanned<DeValue<'_>>) -> Result<Vec<Test>, FileError> {
    let tables = lines.tables(TEST, value)?;
    limit("tests", POLICY_TESTS_MAX, tables.len())?;
    let mut tests = Vec::new();
    for (line, table) in tables {
        let (mut from, mut to, mut action, mut allow) = (None, None, None, None);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                FROM => from = Some(lines.member(FROM, value)?),
                TO => to = Some(lines.member(TO, value)?),
                ACTION => action = Some(lines.action(value)?),
                EXPECT => allow = Some(lines.expect(value)?),
                _ => return Err(lines.unknown(key, &[FROM, TO, ACTION, EXPECT])),
            }
        }
        let missing = |key, expected| FileError::BadValue { line, key, expected };
        tests.push(Test {
            line,
            from: from.ok_or_else(|| missing(FROM, SELECTORS))?,
            to: to.ok_or_else(|| missing(TO, SELECTORS))?,
            action: action.ok_or_else(|| missing(ACTION, AN_ACTION))?,
            allow: allow.ok_or_else(|| missing(EXPECT, ALLOW_OR_DENY))?,
        });
    }
    Ok(tests)
}

/// The text, to say on which line something stands.
#[derive(Clone, Copy)]
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn of(self, span: &Range<usize>) -> usize {
        let before = self.0.as_bytes().get(..span.start).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn unknown(self, key: &Spanned<std::borrow::Cow<'_, str>>, known: &[&'static str]) -> FileError {
        let written = key.get_ref().to_string();
        FileError::UnknownKey { line: self.of(&key.span()), nearest: nearest(&written, known), key: written }
    }

    /// The tables of `[[key]]`, each with its line.
    fn tables<'t, 'i>(
        self,
        key: &'static str,
        value: &'t Spanned<DeValue<'i>>,
    ) -> Result<Vec<(usize, &'t DeTable<'i>)>, FileError> {
        let bad = |span| FileError::BadValue {
            line: self.of(&span),
            key,
            expected: "double brackets: [[rule]], [[test]]",
        };
        let array = value.get_ref().as_array().ok_or_else(|| bad(value.span()))?;
        array
            .iter()
            .map(|item| {
                let table = item.get_ref().as_table().ok_or_else(|| bad(item.span()))?;
                Ok((self.of(&item.span()), table))
            })
            .collect()
    }

    /// A text, or a list of texts, each with its line.
    fn texts<'t>(
        self,
        key: &'static str,
        value: &'t Spanned<DeValue<'_>>,
    ) -> Result<Vec<(usize, &'t str)>, FileError> {
        let bad = |span| FileError::BadValue { line: self.of(&span), key, expected: SELECTORS };
        let one = |item: &'t Spanned<DeValue<'_>>| {
            let text = item.get_ref().as_str().ok_or_else(|| bad(item.span()))?;
            Ok((self.of(&item.span()), text))
        };
        let texts = match value.get_ref().as_array() {
            Some(array) => array.iter().map(one).collect::<Result<Vec<_>, _>>()?,
            None => vec![one(value)?],
        };
        limit("words in one list", POLICY_SELECTORS_MAX, texts.len())?;
        if texts.is_empty() { Err(bad(value.span())) } else { Ok(texts) }
    }

    /// A set, ascending, in which `any` stands alone.
    fn set<T: Ord + fmt::Display>(
        self,
        key: &'static str,
        value: &Spanned<DeValue<'_>>,
        any: &T,
        parse: impl Fn(&str) -> Result<T, SelectorError>,
    ) -> Result<Vec<T>, FileError> {
        let texts = self.texts(key, value)?;
        let mut items: Vec<T> = Vec::new();
        for (line, text) in &texts {
            let item = parse(text).map_err(|why| self.selector(*line, text, why))?;
            if items.contains(&item) {
                return Err(FileError::Twice { line: *line, text: item.to_string() });
            }
            items.push(item);
        }
        items.sort();
        if items.len() > 1 && items.contains(any) {
            let line = texts.first().map_or(1, |(line, _)| *line);
            return Err(FileError::BadValue { line, key, expected: "`any` alone, or a list without it" });
        }
        Ok(items)
    }

    fn selector(self, line: usize, text: &str, why: SelectorError) -> FileError {
        FileError::Selector { line, text: text.to_owned(), why }
    }

    fn member(self, key: &'static str, value: &Spanned<DeValue<'_>>) -> Result<Member, FileError> {
        let mut member = Member::default();
        let selectors = self.set(key, value, &Selector::Any, str::parse)?;
        for selector in selectors {
            match selector {
                Selector::Any => {}
                Selector::Role(role) => member.roles.push(role),
                Selector::Label(label) => member.labels.push(label),
                Selector::Member(name) if member.name.is_none() => member.name = Some(name),
                Selector::Member(_) => {
                    let line = self.of(&value.span());
                    return Err(FileError::BadValue { line, key, expected: "one name: a member has one" });
                }
            }
        }
        Ok(member)
    }

    fn action(self, value: &Spanned<DeValue<'_>>) -> Result<Tag, FileError> {
        let line = self.of(&value.span());
        let bad = FileError::BadValue { line, key: ACTION, expected: AN_ACTION };
        let Some(text) = value.get_ref().as_str() else { return Err(bad) };
        match text.parse::<Doing>().map_err(|why| self.selector(line, text, why))? {
            Doing::Action(name) => Ok(name),
            Doing::Any => Err(bad),
        }
    }

    fn expect(self, value: &Spanned<DeValue<'_>>) -> Result<bool, FileError> {
        match value.get_ref().as_str() {
            Some("allow") => Ok(true),
            Some("deny") => Ok(false),
            Some(_) | None => Err(FileError::BadValue {
                line: self.of(&value.span()),
                key: EXPECT,
                expected: ALLOW_OR_DENY,
            }),
        }
    }
}

const fn limit(what: &'static str, max: usize, got: usize) -> Result<(), FileError> {
    if got > max { Err(FileError::TooLarge { what, max, got }) } else { Ok(()) }
}

impl Member {
    fn subject(&self) -> Subject<'_> {
        Subject { name: self.name.as_ref(), roles: &self.roles, labels: &self.labels }
    }
}

impl FileError {
    /// The code that people meet.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::BadValue { .. } | Self::Twice { .. } => Code::PolicyBadValue,
            Self::Selector { why: SelectorError::BuiltIn { .. }, .. } => Code::PolicyBuiltIn,
            Self::Selector { .. } => Code::PolicyBadSelector,
            Self::TooLarge { .. } => Code::PolicyTooLarge,
            Self::UnknownKey { .. } => Code::PolicyUnknownKey,
            Self::Unreadable { .. } => Code::PolicyUnreadable,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadValue { line, key, expected } => write!(f, "line {line}: {key} takes {expected}"),
            Self::Selector { line, text, why } => write!(f, "line {line}: \"{text}\": {why}"),
            Self::TooLarge { what, max, got } => write!(f, "at most {max} {what} allowed, {got} given"),
            Self::Twice { line, text } => write!(f, "line {line}: {text} stands twice"),
            Self::UnknownKey { line, key, nearest } => {
                write!(f, "line {line}: unknown setting {key}, the nearest is {nearest}")
            }
            Self::Unreadable { line, why } => write!(f, "line {line}: {why}"),
        }
    }
}

impl core::error::Error for FileError {}

/// What the test says, on one line.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let may = if self.allow { "may" } else { "may not" };
        write!(f, "{} {may} {} to {}", self.from, self.action, self.to)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.iter().map(|name| format!("{}:{name}", Selector::MEMBER));
        let roles = self.roles.iter().map(|role| format!("{}:{role}", Selector::ROLE));
        let labels = self.labels.iter().map(|label| format!("{}:{label}", Selector::LABEL));
        let words: Vec<String> = name.chain(roles).chain(labels).collect();
        f.write_str(if words.is_empty() { ANY } else { "" })?;
        f.write_str(&words.join(" "))
    }
}

impl fmt::Display for TestFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}, but ", self.test.line, self.test)?;
        match self.decision {
            Decision::Allow { rule, .. } => write!(f, "this rule allows it: {rule}"),
            Decision::Deny(why) => write!(f, "{why}"),
        }
    }
}

const RULE: &str = "rule";
const TEST: &str = "test";
const FROM: &str = "from";
const TO: &str = "to";
const ACTION: &str = "action";
const EXPECT: &str = "expect";
const SELECTORS: &str = "one or more of \"role:NAME\", \"label:NAME\", \"member:NAME\", or \"any\"";
const AN_ACTION: &str = "the name of one action";
const ALLOW_OR_DENY: &str = "\"allow\" or \"deny\"";
