//! `Debug` for registry credentials that shows who, never with what.

use std::fmt;

use crate::{images::PullRequest, v1::AuthConfig};

impl fmt::Debug for PullRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullRequest")
            .field("image", &self.image)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &str| if secret.is_empty() { "" } else { "[redacted]" };
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("password", &hidden(&self.password))
            .field("auth", &hidden(&self.auth))
            .field("server_address", &self.server_address)
            .field("identity_token", &hidden(&self.identity_token))
            .field("registry_token", &hidden(&self.registry_token))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{AuthConfig, PullImageRequest};

    #[test]
    fn credentials_stay_out_of_debug_output() {
        let request = PullImageRequest {
            auth: Some(AuthConfig {
                username: "reader".into(),
                password: "hunter2".into(),
                auth: "cmVhZGVyOmh1bnRlcjI=".into(),
                identity_token: "identity-secret".into(),
                registry_token: "registry-secret".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let shown = format!("{request:?}");
        assert!(shown.contains("reader"), "{shown}");
        for secret in ["hunter2", "cmVhZGVy", "identity-secret", "registry-secret"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
