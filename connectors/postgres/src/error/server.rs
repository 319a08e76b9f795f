//! What the server says when it refuses something.

use std::fmt;

/// What the server says in an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// The secondary message, if any.
    pub detail: Option<String>,
    /// What PostgreSQL suggests, if anything.
    pub hint: Option<String>,
}

// === impl ServerError ===

impl ServerError {
    /// Whether waiting and trying again may help, by the class of the SQLSTATE.
    ///
    /// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
    pub fn will_pass(&self) -> bool {
        // Connection, transaction rollback, resources, intervention (shutdown, cancel), system; and "object in use",
        // "lock not available".
        let passing = ["08", "40", "53", "57", "58"];
        // All slots or walsenders in use: not without an operator.
        let is_limit = self.sqlstate == "53400";
        (passing.iter().any(|class| self.sqlstate.starts_with(class)) && !is_limit)
            || ["55006", "55P03", "25P03", "25P04"].contains(&self.sqlstate.as_str())
    }

    /// The last number in the message: "replication slot … is active for PID 4711", in any language.
    pub(crate) fn last_number(&self) -> Option<u32> {
        let digits = |c: char| c.is_ascii_digit();
        let end = self.message.rfind(digits)?;
        let head = self.message.get(..=end)?;
        let start = head
            .rfind(|c: char| !digits(c))
            .map_or(Some(0), |at| at.checked_add(1))?;
        head.get(start..)?.parse().ok()
    }
}

impl std::error::Error for ServerError {}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)?;
        let notes = [("detail", &self.detail), ("hint", &self.hint)];
        for (name, note) in notes
            .into_iter()
            .filter_map(|(name, note)| Some((name, note.as_ref()?)))
        {
            write!(f, "; {name}: {note}")?;
        }
        Ok(())
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(ToOwned::to_owned),
            hint: error.hint().map(ToOwned::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(sqlstate: &str, message: &str) -> ServerError {
        ServerError {
            sqlstate: sqlstate.into(),
            message: message.into(),
            ..ServerError::default()
        }
    }

    #[test]
    fn the_pid_is_read_from_the_message_in_any_language() {
        let english = server("55006", "replication slot \"s1\" is active for PID 4711");
        assert_eq!(english.last_number(), Some(4711));
        let other = server("55006", "Replikations-Slot »s1« ist aktiv für PID 4711!");
        assert_eq!(other.last_number(), Some(4711));
        assert_eq!(server("55006", "no number").last_number(), None);
        assert_eq!(server("55006", "12").last_number(), Some(12));
    }
}
