//! `[plugin.config]` into the plugin's own type, with errors that name the key.

use serde::de::DeserializeOwned;

/// Reads the TOML text. The error is a sentence for the operator: the key as a path
/// (`rules[2].prefix`), what was expected and what was found.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let deserializer = toml::Deserializer::parse(text)
        .map_err(|error| format!("[plugin.config] is not TOML: {}", error.message()))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let message = error.inner().message().to_owned();
        match error.path().to_string().as_str() {
            "." => format!("[plugin.config]: {message}"),
            key => format!("[plugin.config] key `{key}`: {message}"),
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::parse;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only parsed")]
    struct Config {
        #[serde(default)]
        rules: Vec<Rule>,
        mode: String,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only parsed")]
    struct Rule {
        prefix: String,
    }

    #[test]
    fn errors_name_the_key() {
        let cases = [
            ("mode = 7", "key `mode`: invalid type: integer `7`, expected a string"),
            ("", "[plugin.config]: missing field `mode`"),
            ("mode = 'x'\nmood = 1", "key `mood`: unknown field `mood`, expected"),
            ("mode = 'x'\n[[rules]]\nprefix = 'a'\n[[rules]]\nprefix = 1", "key `rules[1].prefix`"),
            ("mode = ", "[plugin.config] is not TOML"),
        ];
        for (text, expected) in cases {
            let message = parse::<Config>(text).expect_err(text);
            assert!(message.contains(expected), "{text:?} gave {message:?}");
        }
        assert!(parse::<Config>("mode = 'x'").is_ok());
    }
}
