//! Who made a call: remembered as it stands in the record, and read when somebody asks.

use std::borrow::Cow;

use super::walk::{Unexpected, Walk};

/// The members that tell who made a call, as JSON; empty where the record has none. Most calls are of nobody's
/// interest, so finding where these members end is all that they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RawCaller<'a> {
    /// `userIdentity`.
    pub user_identity: &'a str,
    /// `userAgent`.
    pub user_agent: &'a str,
    /// `sourceIPAddress`.
    pub source_ip: &'a str,
}

impl<'a> RawCaller<'a> {
    /// The first of these that `userIdentity` has: the ARN of the session's issuer, so that all sessions of a role are
    /// one; its own ARN; the service that calls; the principal's id, as in calls from another account. Empty without
    /// any, and where it is not of CloudTrail's form.
    pub fn principal(self) -> Cow<'a, str> {
        let identity = Identity::read(&mut Walk::new(self.user_identity)).unwrap_or_default();
        let candidates = [
            identity.issuer_arn,
            identity.arn,
            identity.invoked_by,
            identity.principal_id,
        ];
        let mut found = candidates.into_iter().filter(|text| !text.is_empty());
        found.next().unwrap_or_default()
    }

    /// The user agent; empty if it is no text.
    pub fn user_agent(self) -> Cow<'a, str> {
        text(&mut Walk::new(self.user_agent)).unwrap_or_default()
    }

    /// The address; empty if it is no text.
    pub fn source_ip(self) -> Cow<'a, str> {
        text(&mut Walk::new(self.source_ip)).unwrap_or_default()
    }
}

/// The members of `userIdentity` that can name it.
#[derive(Default)]
struct Identity<'a> {
    issuer_arn: Cow<'a, str>,
    arn: Cow<'a, str>,
    invoked_by: Cow<'a, str>,
    principal_id: Cow<'a, str>,
}

impl<'a> Identity<'a> {
    fn read(walk: &mut Walk<'a>) -> Result<Self, Unexpected> {
        let mut identity = Self::default();
        walk.members(|walk, name| {
            let member = match name {
                "arn" => &mut identity.arn,
                "invokedBy" => &mut identity.invoked_by,
                "principalId" => &mut identity.principal_id,
                "sessionContext" => {
                    identity.issuer_arn = issuer_arn(walk)?;
                    return Ok(());
                }
                _ => return walk.skip(),
            };
            *member = text(walk)?;
            Ok::<_, Unexpected>(())
        })?;
        Ok(identity)
    }
}

/// `sessionIssuer.arn` of the session context at `walk`.
fn issuer_arn<'a>(walk: &mut Walk<'a>) -> Result<Cow<'a, str>, Unexpected> {
    let mut arn = Cow::default();
    members_if_any(walk, |walk, name| match name {
        "sessionIssuer" => members_if_any(walk, |walk, name| match name {
            "arn" => {
                arn = text(walk)?;
                Ok(())
            }
            _ => walk.skip(),
        }),
        _ => walk.skip(),
    })?;
    Ok(arn)
}

/// Walks through an object, and passes over any other value.
fn members_if_any<'a>(
    walk: &mut Walk<'a>,
    each: impl FnMut(&mut Walk<'a>, &str) -> Result<(), Unexpected>,
) -> Result<(), Unexpected> {
    match walk.peek() {
        Some(b'{') => walk.members(each),
        _ => walk.skip(),
    }
}

/// Reads a text; any other value is an empty one.
fn text<'a>(walk: &mut Walk<'a>) -> Result<Cow<'a, str>, Unexpected> {
    match walk.peek() {
        Some(b'"') => Ok(walk.text_or_null()?.unwrap_or_default()),
        _ => walk.skip().map(|()| Cow::default()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn principal(user_identity: &str) -> Cow<'_, str> {
        let raw = RawCaller {
            user_identity,
            ..RawCaller::default()
        };
        raw.principal()
    }

    #[test]
    fn the_principal_is_the_role_then_the_identity_then_what_stands_in_for_it() {
        let role = r#"{"type":"AssumedRole","principalId":"AROAX:i-1","arn":"arn:aws:sts::1:assumed-role/batch/i-1",
            "sessionContext":{"attributes":{"arn":"no"},"sessionIssuer":{"type":"Role","arn":"arn:aws:iam::1:role\/batch"}}}"#;
        for (identity, expected) in [
            (role, "arn:aws:iam::1:role/batch"),
            (
                r#"{"arn":"arn:aws:iam::1:user/ann","sessionContext":{"sessionIssuer":{}},"userName":"ann"}"#,
                "arn:aws:iam::1:user/ann",
            ),
            (
                r#"{"type":"AWSService","invokedBy":"rds.amazonaws.com"}"#,
                "rds.amazonaws.com",
            ),
            (
                r#"{"type":"AWSAccount","principalId":"AIDAX","accountId":"2","userName":"ann"}"#,
                "AIDAX",
            ),
            (r#"{"type":"IdentityCenterUser"}"#, ""),
        ] {
            assert_eq!(principal(identity), expected, "{identity}");
        }
    }

    #[test]
    fn what_is_not_of_cloudtrails_form_is_passed_over() {
        for (identity, expected) in [
            ("", ""),
            ("null", ""),
            ("7", ""),
            (r#""root""#, ""),
            (r#"["arn"]"#, ""),
            (r#"{"arn":7,"invokedBy":null,"principalId":["x"]}"#, ""),
            (r#"{"arn":{"arn":"x"},"principalId":"AIDAX"}"#, "AIDAX"),
            (r#"{"sessionContext":[],"arn":"a"}"#, "a"),
            (r#"{"sessionContext":{"sessionIssuer":"x"},"arn":"a"}"#, "a"),
            // Brackets that close are all that was looked at before.
            (r#"{"arn":"a",}"#, ""),
            (r#"{"arn" "a"}"#, ""),
        ] {
            assert_eq!(principal(identity), expected, "{identity}");
        }
        let raw = RawCaller {
            user_agent: r#"["x"]"#,
            source_ip: "7",
            ..RawCaller::default()
        };
        assert_eq!((raw.user_agent(), raw.source_ip()), ("".into(), "".into()));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(text in r#"([\[\]{},:"\\ ]|null|"arn"|"sessionContext"|"sessionIssuer"|"x"){0,30}"#) {
            let raw = RawCaller { user_identity: &text, user_agent: &text, source_ip: &text };
            let longest = text.len();
            prop_assert!(raw.principal().len() <= longest && raw.user_agent().len() <= longest);
        }
    }
}
