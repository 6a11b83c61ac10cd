//! `--token-auth-file`: tokens and their users, a line each: `token,user,uid,"group1,group2"`.

use super::AuthnError;
use super::tokens::{TokenAuthenticator, TokenUser};
use crate::context::Told;
use crate::user::UserInfo;
use async_trait::async_trait;
use std::collections::HashMap;
use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenFileError {
    #[error(
        "line {line} of the token file has {found} fields: it needs token, user name and user uid, then optionally \"group1,group2\""
    )]
    Fields { line: usize, found: usize },
    #[error("line {line} of the token file has a quote that does not end")]
    Quote { line: usize },
}

/// Tokens that are known from the start.
#[derive(Debug, Default)]
pub struct TokenFile {
    /// By digest, so that the time a look-up takes tells nothing of the tokens.
    users: HashMap<[u8; 32], UserInfo>,
}

fn digest(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref());
    out
}

impl TokenFile {
    /// Reads the file's text. Lines with an empty token are skipped; a later line of a token counts.
    ///
    /// # Errors
    /// A line with fewer than three fields, or with a quote that does not end.
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        let mut users = HashMap::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = fields(line).ok_or(TokenFileError::Quote { line: i + 1 })?;
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(TokenFileError::Fields { line: i + 1, found: fields.len() });
            };
            if token.is_empty() {
                tracing::warn!(line = i + 1, "the token file has an empty token");
                continue;
            }
            let groups = rest.first().map_or("", String::as_str).split(',').map(str::trim).filter(|g| !g.is_empty());
            let user = UserInfo { uid: uid.clone(), ..UserInfo::new(name.clone(), groups) };
            users.insert(digest(token), user);
        }
        Ok(TokenFile { users })
    }
}

/// The fields of a line of comma-separated values; quotes double to stand for themselves.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(field) = fields.last_mut() else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted || field.trim().is_empty() => {
                field.clear_if_blank();
                quoted = !quoted;
            }
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    (!quoted).then(|| fields.iter().map(|f| f.trim().to_owned()).collect())
}

trait ClearIfBlank {
    fn clear_if_blank(&mut self);
}
impl ClearIfBlank for String {
    fn clear_if_blank(&mut self) {
        if self.trim().is_empty() {
            self.clear();
        }
    }
}

#[async_trait]
impl TokenAuthenticator for TokenFile {
    async fn authenticate(&self, token: &str, _audiences: &[String]) -> Result<Option<TokenUser>, AuthnError> {
        Ok(self.users.get(&digest(token)).map(|user| TokenUser {
            user: user.clone(),
            audiences: Vec::new(),
            told: Told::default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_tokens_users_and_groups() {
        let file = TokenFile::parse("# a comment\nt1,jane,7,\"devs, ops\"\nt2, joe ,8\n,nobody,9\n").expect("a file");
        let user = file.authenticate("t1", &[]).await.expect("no error").expect("a user").user;
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["devs", "ops"]);
        assert_eq!(file.authenticate("t2", &[]).await.expect("no error").expect("a user").user.name, "joe");
        assert_eq!(file.authenticate("", &[]).await.ok(), Some(None));
        assert_eq!(file.authenticate("t3", &[]).await.ok(), Some(None));
    }

    #[test]
    fn bad_lines_are_named() {
        assert_eq!(TokenFile::parse("a,b").err(), Some(TokenFileError::Fields { line: 1, found: 2 }));
        assert_eq!(TokenFile::parse("x,y,z\na,b,c,\"d").err(), Some(TokenFileError::Quote { line: 2 }));
    }
}
