//! How a source reaches AWS: with which credentials, in which Regions, and at which endpoints.

use std::time::Duration;

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_types::timeout::TimeoutConfig;

/// One attempt may take this long; the SDK retries as its standard mode does.
const ATTEMPT: Duration = Duration::from_secs(20);
/// All attempts at one request together.
const OPERATION: Duration = Duration::from_secs(60);
/// What CloudTrail records of an assumed role's session.
const SESSION: &str = "cloudtrail-tls-exporter";

/// How AWS is reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// The Regions, each asked by a worker of its own; by default that of the environment, the profile or the instance.
    pub regions: Vec<String>,
    /// The roles that are assumed, each by a worker of its own; by default none, and the credentials are used as they are.
    pub roles: Vec<Role>,
    /// A profile of the AWS configuration files.
    pub profile: Option<String>,
    /// Another endpoint than AWS's own. Roles are assumed at AWS's.
    pub endpoint_url: Option<String>,
    /// FIPS endpoints.
    pub use_fips: bool,
    /// Dual-stack endpoints.
    pub use_dual_stack: bool,
}

/// A role in an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// What the role's trust policy asks for beside the account.
    pub external_id: Option<String>,
}

impl Role {
    /// The account in an ARN such as `arn:aws:iam::111122223333:role/reader`; `None` if it is no role's.
    pub fn account_of(arn: &str) -> Option<&str> {
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next();
        let (arn, partition, service) = (next()?, next()?, next()?);
        let (region, account, role) = (next()?, next()?, next()?);
        let digits = account.len() == 12 && account.bytes().all(|digit| digit.is_ascii_digit());
        let named = role
            .strip_prefix("role/")
            .is_some_and(|name| !name.is_empty());
        let of_iam = arn == "arn" && !partition.is_empty() && service == "iam" && region.is_empty();
        (of_iam && digits && named).then_some(account)
    }
}

/// Where one worker asks: with which role, and in which Region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The role; `None` where credentials are used as they are.
    pub role: Option<Role>,
    /// The Region; `None` for that of the environment, the profile or the instance.
    pub region: Option<String>,
}

impl Place {
    /// The account of the role; empty where there is none.
    pub fn account(&self) -> &str {
        let role = self.role.as_ref();
        role.and_then(|role| Role::account_of(&role.arn))
            .unwrap_or_default()
    }
}

impl Access {
    /// Each role in each Region: one worker each.
    pub fn places(&self) -> Vec<Place> {
        let roles = or_none(&self.roles);
        let regions = or_none(&self.regions);
        let place = |role: &Option<Role>, region: &Option<String>| Place {
            role: role.clone(),
            region: region.clone(),
        };
        let of_role = |role| regions.iter().map(move |region| place(role, region));
        roles.iter().flat_map(of_role).collect()
    }

    /// The same way to AWS, to one place alone.
    pub fn to(&self, place: Place) -> Self {
        Self {
            regions: place.region.into_iter().collect(),
            roles: place.role.into_iter().collect(),
            ..self.clone()
        }
    }

    /// What every client of a place is made of. Finds the Region and where credentials come from; nobody is asked for
    /// credentials before the first request, and a role's are asked for anew before they expire.
    pub async fn load(&self, place: &Place) -> SdkConfig {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(OPERATION);
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .timeout_config(timeouts.build())
            .use_fips(self.use_fips)
            .use_dual_stack(self.use_dual_stack);
        if let Some(region) = &place.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        let config = loader.load().await;
        let mut with = config.to_builder();
        if let Some(role) = &place.role {
            let mut provider = AssumeRoleProvider::builder(&role.arn)
                .configure(&config)
                .session_name(SESSION);
            if let Some(id) = &role.external_id {
                provider = provider.external_id(id);
            }
            let provider = SharedCredentialsProvider::new(provider.build().await);
            with.set_credentials_provider(Some(provider));
        }
        if self.endpoint_url.is_some() {
            with.set_endpoint_url(self.endpoint_url.clone());
        }
        with.build()
    }
}

/// Each of some, or none where there are none.
fn or_none<T: Clone>(some: &[T]) -> Vec<Option<T>> {
    match some {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_in_each_region_is_a_place() {
        let role = |account: &str| Role {
            arn: format!("arn:aws:iam::{account}:role/reader"),
            external_id: None,
        };
        let place = |role: Option<&Role>, region: Option<&str>| Place {
            role: role.cloned(),
            region: region.map(str::to_owned),
        };
        assert_eq!(Access::default().places(), [Place::default()]);
        let (first, second) = (role("111122223333"), role("444455556666"));
        let access = Access {
            roles: vec![first.clone(), second.clone()],
            regions: vec!["eu-west-1".to_owned(), "us-east-1".to_owned()],
            ..Access::default()
        };
        let expected = [
            place(Some(&first), Some("eu-west-1")),
            place(Some(&first), Some("us-east-1")),
            place(Some(&second), Some("eu-west-1")),
            place(Some(&second), Some("us-east-1")),
        ];
        assert_eq!(access.places(), expected);
        assert_eq!(expected[2].account(), "444455556666");
        assert_eq!(place(None, Some("eu-west-1")).account(), "");
    }

    #[test]
    fn a_role_is_told_by_its_arn() {
        let good = [
            "arn:aws:iam::111122223333:role/reader",
            "arn:aws-cn:iam::111122223333:role/a/b",
        ];
        for arn in good {
            assert_eq!(Role::account_of(arn), Some("111122223333"), "{arn}");
        }
        for arn in [
            "",
            "reader",
            "arn:aws:iam::111122223333:user/reader",
            "arn:aws:iam::1111:role/reader",
            "arn:aws:iam::111122223333:role/",
            "arn:aws:sts::111122223333:assumed-role/reader/session",
            "arn:aws:iam:eu-west-1:111122223333:role/reader",
        ] {
            assert_eq!(Role::account_of(arn), None, "{arn}");
        }
    }
}
