//! JSON that remembers where each value stands.
//!
//! - A name stands once in an object: of two, one would be lost without a word.
//! - Nesting has a limit, so that no file exhausts the stack.

use serde::Serialize;
use serde_json::Value as Json;

use super::mistake::Flaw;

/// What MongoDB takes is less.
const MAX_DEPTH: usize = 150;

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
}

/// A member of an object, with the place of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

struct Reader<'a> {
    rest: &'a str,
    place: Place,
    depth: usize,
}

// === impl Place ===

impl Place {
    /// Where a text begins.
    pub const START: Self = Self { line: 1, column: 1 };
}

// === impl Node ===

impl Node {
    /// Reads a text that is one value.
    pub(super) fn parse(text: &str) -> Result<Self, Flaw> {
        let mut reader = Reader {
            rest: text,
            place: Place::START,
            depth: 0,
        };
        let node = reader.value()?;
        match reader.peek() {
            None => Ok(node),
            Some(_) => Err(reader.flaw("nothing may follow the object")),
        }
    }

    /// The same without places.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(flag) => Json::Bool(*flag),
            // It was seen to be one.
            Value::Number(text) => serde_json::from_str(text).unwrap_or(Json::Null),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Object(members) => {
                let members = members.iter();
                let members = members.map(|it| (it.name.clone(), it.value.to_json()));
                Json::Object(members.collect())
            }
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn members(&self) -> Option<&[Member]> {
        match &self.value {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The value of a member; none when there is no such member, or this is no object.
    pub(super) fn member(&self, name: &str) -> Option<&Node> {
        let mut members = self.members()?.iter();
        members.find(|it| it.name == name).map(|it| &it.value)
    }

    /// The only member of an object that has one.
    pub(super) fn only_member(&self) -> Option<&Member> {
        match self.members()? {
            [member] => Some(member),
            _ => None,
        }
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn value(&mut self) -> Result<Node, Flaw> {
        let first = self.peek();
        let place = self.place;
        let value = match first {
            Some('{') => self.deeper(Self::object),
            Some('[') => self.deeper(Self::list),
            Some('"') => self.string().map(Value::Text),
            Some('-' | '0'..='9') => self.number(),
            Some('a'..='z') => self.word(),
            Some(_) => Err(self.flaw("not JSON: a value must stand here")),
            None => Err(self.flaw("not JSON: the file ends where a value must stand")),
        }?;
        Ok(Node { place, value })
    }

    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value, Flaw>,
    ) -> Result<Value, Flaw> {
        if self.depth == MAX_DEPTH {
            return Err(self.flaw("too many levels of nesting"));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value, Flaw> {
        self.take(1);
        let mut members: Vec<Member> = Vec::new();
        if self.accept('}') {
            return Ok(Value::Object(members));
        }
        loop {
            let first = self.peek();
            let place = self.place;
            if first != Some('"') {
                return Err(self.flaw("not JSON: a name in quotes must stand here"));
            }
            let name = self.string()?;
            if members.iter().any(|it| it.name == name) {
                return Err(Flaw::new(place, format!("{name:?} stands here twice")));
            }
            if !self.accept(':') {
                return Err(self.flaw("not JSON: a colon must follow the name"));
            }
            let value = self.value()?;
            members.push(Member { name, place, value });
            if !self.goes_on('}')? {
                return Ok(Value::Object(members));
            }
        }
    }

    fn list(&mut self) -> Result<Value, Flaw> {
        self.take(1);
        let mut items = Vec::new();
        if self.accept(']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value()?);
            if !self.goes_on(']')? {
                return Ok(Value::List(items));
            }
        }
    }

    /// Whether a comma follows, not the end.
    fn goes_on(&mut self, end: char) -> Result<bool, Flaw> {
        if self.accept(',') {
            return Ok(true);
        }
        if self.accept(end) {
            return Ok(false);
        }
        Err(self.flaw(&format!("not JSON: a comma or {end} must stand here")))
    }

    fn string(&mut self) -> Result<String, Flaw> {
        let place = self.place;
        let mut is_escaped = false;
        let ends = |(_, c): &(usize, char)| {
            let is_end = *c == '"' && !is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            is_end
        };
        let end = self.rest.char_indices().skip(1).find(ends);
        let Some((end, _)) = end else {
            return Err(Flaw::new(place, "not JSON: the text has no end"));
        };
        let token = self.take(end + 1);
        serde_json::from_str(token).map_err(|_| {
            let message = "not JSON: a text with a line break or an escape that JSON does not have";
            Flaw::new(place, message)
        })
    }

    fn number(&mut self) -> Result<Value, Flaw> {
        let place = self.place;
        let is_part = |c: char| matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let token = self.take(end);
        match serde_json::from_str::<serde_json::Number>(token) {
            Ok(_) => Ok(Value::Number(token.to_owned())),
            Err(_) => Err(Flaw::new(place, format!("not JSON: {token} is no number"))),
        }
    }

    fn word(&mut self) -> Result<Value, Flaw> {
        let place = self.place;
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric());
        let token = self.take(end.unwrap_or(self.rest.len()));
        match token {
            "null" => Ok(Value::Null),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            other => Err(Flaw::new(place, format!("not JSON: {other} has no quotes"))),
        }
    }

    /// Whether this comes next; then it is taken.
    fn accept(&mut self, wanted: char) -> bool {
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.take(wanted.len_utf8());
        }
        is_next
    }

    /// What comes next, white space passed over.
    fn peek(&mut self) -> Option<char> {
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
        let end = self.rest.find(|c| !is_space(c));
        self.take(end.unwrap_or(self.rest.len()));
        self.rest.chars().next()
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        for c in taken.chars() {
            if c == '\n' {
                self.place.line += 1;
                self.place.column = 1;
            } else {
                self.place.column += 1;
            }
        }
        self.rest = rest;
        taken
    }

    fn flaw(&self, message: &str) -> Flaw {
        Flaw::new(self.place, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw(text: &str) -> (usize, usize, String) {
        let Flaw { place, message } = Node::parse(text).unwrap_err();
        (place.line, place.column, message)
    }

    #[test]
    fn every_value_knows_its_place() {
        let node = Node::parse("{ \"ä\": [1,\n  true, {\"b\": \"c\\\"\\u00e9\"}] }").unwrap();
        let items = node.member("ä").and_then(Node::items).unwrap();
        let places: Vec<_> = items.iter().map(|it| it.place).collect();
        let place = |line, column| Place { line, column };
        assert_eq!(places, [place(1, 9), place(2, 3), place(2, 9)]);
        let b = items[2].only_member().unwrap();
        assert_eq!((b.place, b.value.text()), (place(2, 10), Some("c\"é")));
    }

    #[test]
    fn what_is_not_json_is_named_with_its_place() {
        let cases = [
            ("", (1, 1, "the file ends")),
            ("{\n  \"a\": 1,\n}", (3, 1, "a name in quotes")),
            ("{\"a\" 1}", (1, 6, "a colon")),
            ("[1 2]", (1, 4, "a comma or ]")),
            ("{\"a\": yes}", (1, 7, "yes has no quotes")),
            ("{\"a\": 01}", (1, 7, "01 is no number")),
            ("{\"a\": \"b}", (1, 7, "no end")),
            ("{\"a\": \"\n\"}", (1, 7, "line break")),
            ("{\"a\": 1, \"a\": 2}", (1, 10, "twice")),
            ("{} {}", (1, 4, "nothing may follow")),
            ("{} // why", (1, 4, "nothing may follow")),
        ];
        for (text, (line, column, message)) in cases {
            let found = flaw(text);
            assert_eq!((found.0, found.1), (line, column), "{text}: {found:?}");
            assert!(found.2.contains(message), "{text}: {found:?}");
        }
    }

    #[test]
    fn nesting_without_end_is_a_mistake() {
        assert!(flaw(&"[".repeat(1_000_000)).2.contains("nesting"));
    }
}
