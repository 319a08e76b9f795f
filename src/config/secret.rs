//! What is shown of values that may hold secrets.
//!
//! - A password in a URL and each option or property whose name speaks of a secret is `***`.

use super::ConnectionUrl;

pub(super) const HIDDEN: &str = "***";
/// Parts of the names of secrets: of MongoDB's options, of libpq's and of librdkafka's properties.
const SECRETS: &[&str] = &[
    "config",
    "jaas",
    "key",
    "password",
    "pem",
    "properties",
    "secret",
    "token",
];
/// Ends of the names of paths, which are none.
const PATHS: &[&str] = &["file", "location", "sslkey"];

/// A URL with its options, as `postgres://walferry:***@localhost:5432/walmart?sslmode=require`.
pub(super) fn url(url: &ConnectionUrl) -> String {
    let shown = url.to_string();
    let Some(place) = shown.strip_suffix("?…") else {
        return shown;
    };
    let (_, options) = url.expose().split_once('?').unwrap_or_default();
    let options: Vec<_> = options.split('&').map(option).collect();
    format!("{place}?{}", options.join("&"))
}

/// The value of a property, when its name allows.
pub(super) fn property(name: &str, value: &str) -> String {
    let name = name.to_lowercase();
    let is_path = PATHS.iter().any(|end| name.ends_with(end));
    let is_secret = SECRETS.iter().any(|part| name.contains(part));
    if is_secret && !is_path { HIDDEN } else { value }.to_owned()
}

fn option(option: &str) -> String {
    match option.split_once('=') {
        Some((name, value)) => format!("{name}={}", property(name, value)),
        // No option at all: perhaps the rest of a password with a ? that should have been escaped.
        None => HIDDEN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_with_its_options_and_without_its_secrets() {
        let cases = [
            (
                "postgres://u:s3cret@h:5432/db",
                "postgres://u:***@h:5432/db",
            ),
            (
                "postgres://u:s3cret@h/db?sslmode=require&sslkey=/k.pem",
                "postgres://u:***@h/db?sslmode=require&sslkey=/k.pem",
            ),
            (
                "postgres://h/db?user=u&password=s3cret&sslpassword=s3cret",
                "postgres://h/db?user=u&password=***&sslpassword=***",
            ),
            (
                "mongodb://h/?replicaSet=rs0&tlsCertificateKeyFile=/k&tlsCertificateKeyFilePassword=s3cret",
                "mongodb://h/?replicaSet=rs0&tlsCertificateKeyFile=/k&tlsCertificateKeyFilePassword=***",
            ),
            (
                "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:s3cret",
                "mongodb://h/?authMechanismProperties=***",
            ),
            ("postgres://h/db?s3cret", "postgres://h/db?***"),
            ("postgres://u:s3?cr=et@h/db", "postgres://***"),
        ];
        for (given, shown) in cases {
            assert_eq!(url(&ConnectionUrl::new(given)), shown);
        }
    }

    #[test]
    fn a_property_is_shown_unless_its_name_speaks_of_a_secret() {
        let shown = [
            "security.protocol",
            "sasl.username",
            "ssl.ca.location",
            "ssl.key.location",
            "ssl.keystore.location",
        ];
        for name in shown {
            assert_eq!(property(name, "value"), "value", "{name}");
        }
        let hidden = [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "sasl.jaas.config",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.client.secret",
        ];
        for name in hidden {
            assert_eq!(property(name, "s3cret"), "***", "{name}");
        }
    }
}
