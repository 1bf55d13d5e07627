//! `WWW-Authenticate`: what an upstream wants of us (RFC 9110 §11.6.1). Pure.
//!
//! One field may hold several challenges, commas separate challenges and parameters alike, and
//! quoted strings may hold commas. What breaks the grammar is refused, not guessed at.

/// Longest field value that is read.
const FIELD_BYTES_MAX: usize = 8 * 1024;
/// Most challenges in one reply.
const CHALLENGES_MAX: usize = 16;
/// Most parameters of one challenge.
const PARAMETERS_MAX: usize = 16;

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Lower-case scheme: `bearer`, `basic`.
    pub(super) scheme: String,
    parameters: Vec<(String, String)>,
}

/// Why a field is not a list of challenges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ChallengeError(&'static str);

impl Challenge {
    /// A parameter's value (unquoted), by its lower-case name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// All challenges of all `WWW-Authenticate` fields of a reply, in order.
pub(super) fn parse_all<'a>(
    fields: impl Iterator<Item = &'a str>,
) -> Result<Vec<Challenge>, ChallengeError> {
    let mut all = Vec::new();
    for field in fields {
        all.append(&mut parse(field)?);
        if all.len() > CHALLENGES_MAX {
            return Err(ChallengeError("more than 16 challenges"));
        }
    }
    Ok(all)
}

fn parse(field: &str) -> Result<Vec<Challenge>, ChallengeError> {
    if field.len() > FIELD_BYTES_MAX {
        return Err(ChallengeError("a WWW-Authenticate field over 8 KiB"));
    }
    let mut rest = Cursor(field);
    let mut challenges: Vec<Challenge> = Vec::new();
    rest.skip(is_list_space);
    while !rest.0.is_empty() {
        let name = rest.token().ok_or(ChallengeError("expected a scheme or a parameter"))?;
        let after = rest;
        rest.skip(is_space);
        if rest.eat('=') {
            let challenge = challenges.last_mut().ok_or(ChallengeError("parameter, no scheme"))?;
            add_parameter(challenge, name, rest.value()?)?;
            rest.end_of_element()?;
            continue;
        }
        let scheme = name.to_ascii_lowercase();
        challenges.push(Challenge { scheme, parameters: Vec::new() });
        if challenges.len() > CHALLENGES_MAX {
            return Err(ChallengeError("more than 16 challenges"));
        }
        // Past the scheme: token68, a first parameter (the loop reads it), or the list goes on.
        let is_spaced = after.0.len() != rest.0.len();
        if !is_spaced || rest.token68() || rest.0.starts_with(',') {
            rest.end_of_element()?;
        }
    }
    Ok(challenges)
}

fn add_parameter(
    challenge: &mut Challenge,
    name: &str,
    value: String,
) -> Result<(), ChallengeError> {
    let name = name.to_ascii_lowercase();
    if challenge.parameter(&name).is_some() {
        return Err(ChallengeError("a parameter stands twice"));
    }
    if challenge.parameters.len() == PARAMETERS_MAX {
        return Err(ChallengeError("more than 16 parameters"));
    }
    challenge.parameters.push((name, value));
    Ok(())
}

#[derive(Clone, Copy)]
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, which: fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(which);
    }

    fn eat(&mut self, c: char) -> bool {
        let rest = self.0.strip_prefix(c);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn take(&mut self, which: fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !which(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn token(&mut self) -> Option<&'a str> {
        Some(self.take(is_token)).filter(|token| !token.is_empty())
    }

    /// A token68 that is a whole element; otherwise nothing is consumed.
    fn token68(&mut self) -> bool {
        let mut ahead = *self;
        let body = ahead.take(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        ahead.take(|c| c == '=');
        ahead.skip(is_space);
        let whole = !body.is_empty() && (ahead.0.is_empty() || ahead.0.starts_with(','));
        if whole {
            *self = ahead;
        }
        whole
    }

    /// What follows `=`: a token or a quoted string, unescaped.
    fn value(&mut self) -> Result<String, ChallengeError> {
        self.skip(is_space);
        if !self.eat('"') {
            let token = self.token().ok_or(ChallengeError("a parameter has no value"))?;
            return Ok(token.to_owned());
        }
        let mut value = String::new();
        let mut characters = self.0.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.0 = self.0.get(at + 1..).unwrap_or_default();
                    return Ok(value);
                }
                '\\' => match characters.next() {
                    Some((_, escaped)) if !escaped.is_control() => value.push(escaped),
                    _ => return Err(ChallengeError("a bad escape in a quoted string")),
                },
                c if c.is_control() && c != '\t' => {
                    return Err(ChallengeError("a control character in a quoted string"));
                }
                c => value.push(c),
            }
        }
        Err(ChallengeError("a quoted string does not end"))
    }

    /// A comma (several are legal, RFC 9110 §5.6.1) or the end.
    fn end_of_element(&mut self) -> Result<(), ChallengeError> {
        self.skip(is_space);
        if !self.0.is_empty() && !self.0.starts_with(',') {
            return Err(ChallengeError("expected a comma"));
        }
        self.skip(is_list_space);
        Ok(())
    }
}

fn is_space(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_list_space(c: char) -> bool {
    is_space(c) || c == ','
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scheme name=value name=value; scheme …`
    fn shown(field: &str) -> String {
        let show = |c: &Challenge| {
            let parameters: Vec<_> = c.parameters.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{} {}", c.scheme, parameters.join(" ")).trim_end().to_owned()
        };
        parse(field).expect(field).iter().map(show).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn challenges_are_read() {
        let cases = [
            ("", ""),
            (" , ,", ""),
            ("Basic", "basic"),
            ("Basic realm=\"a b\"", "basic realm=a b"),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
                 scope=\"repository:library/x:pull\"",
                "bearer realm=https://auth.docker.io/token service=registry.docker.io \
                 scope=repository:library/x:pull",
            ),
            ("bearer REALM=x , scope = \"a:b,c\"", "bearer realm=x scope=a:b,c"),
            ("Basic realm=\"r\", Bearer realm=\"s\"", "basic realm=r; bearer realm=s"),
            ("Negotiate, Basic realm=r", "negotiate; basic realm=r"),
            ("Negotiate YWJj==, Basic realm=r", "negotiate; basic realm=r"),
            ("Negotiate abc", "negotiate"),
            // By the grammar a token68, so there is no realm.
            ("Bearer realm=", "bearer"),
            ("Digest  realm=\"a\\\"b\\\\c\",,nonce=1,", "digest realm=a\"b\\c nonce=1"),
            ("Bearer realm=\"\"", "bearer realm="),
            ("Basic , Bearer realm=x", "basic; bearer realm=x"),
        ];
        for (field, expected) in cases {
            assert_eq!(shown(field), expected, "{field}");
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        let many = "A, ".repeat(17);
        let long = format!("Bearer realm=\"{}\"", "x".repeat(FIELD_BYTES_MAX));
        let parameters: String = (0..17).map(|n| format!("p{n}=1,")).collect();
        let parameters = format!("Bearer {parameters}");
        let cases = [
            "realm=x",
            "Bearer realm=, scope=x=",
            "Bearer realm=\"x",
            "Bearer realm=\"x\\",
            "Bearer realm=\"x\" scope=y",
            "Bearer realm=a, realm=b",
            "Bearer realm=\"a\u{1}b\"",
            "Bearer realm=x; scope=y",
            "\"Bearer\" realm=x",
            "Bearer@x",
            many.as_str(),
            long.as_str(),
            parameters.as_str(),
        ];
        for field in cases {
            assert!(parse(field).is_err(), "{field}");
        }
        assert!(parse_all(["Basic, Basic, Basic, Basic, Basic, Basic"; 3].into_iter()).is_err());
    }

    #[test]
    fn fields_are_joined_in_order() {
        let fields = ["Basic realm=a", "Bearer realm=b"];
        let all = parse_all(fields.into_iter()).expect("two fields");
        assert_eq!(all.iter().map(|c| c.scheme.as_str()).collect::<Vec<_>>(), ["basic", "bearer"]);
        assert_eq!(all.get(1).and_then(|c| c.parameter("realm")), Some("b"));
        assert_eq!(all.get(1).and_then(|c| c.parameter("scope")), None);
    }
}
