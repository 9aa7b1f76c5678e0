//! Basic auth: users and the bcrypt hashes of their passwords. bcrypt is slow on purpose, so what it said is remembered,
//! it works beside the event loop, and on one password at a time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::{BcryptError, HashParts};
use hyper::header::HeaderValue;
use tokio::sync::Semaphore;
use tracing::{debug, error};

/// So many right passwords are remembered, and as many wrong ones: who guesses cannot make right ones forgotten.
const REMEMBERED: usize = 100;
/// So many passwords of one address may wait for bcrypt: who guesses cannot fill the queue before others.
const WAITING: usize = 8;

/// Who may ask. Each name with its hash, never shown.
#[derive(Clone, Default)]
pub(super) struct Users {
    hashes: BTreeMap<String, String>,
    /// What the password of a user who is not there is compared with: the most costly hash of those who are.
    decoy: String,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.hashes.keys()).finish()
    }
}

impl Users {
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Self {
        let cost = |hash: &&String| HashParts::from_str(hash).map_or(0, |parts| parts.get_cost());
        let decoy = hashes.values().max_by_key(cost).cloned();
        Self {
            decoy: decoy.unwrap_or_default(),
            hashes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The hash to compare a password with, and whether that of a user is right at all.
    fn hash(&self, user: &[u8]) -> (String, bool) {
        let hash = str::from_utf8(user)
            .ok()
            .and_then(|user| self.hashes.get(user));
        (hash.unwrap_or(&self.decoy).clone(), hash.is_some())
    }
}

/// Why a hash is no bcrypt hash.
pub(super) fn hash_problem(hash: &str) -> Option<String> {
    match HashParts::from_str(hash) {
        Ok(parts) if (4..=31).contains(&parts.get_cost()) => None,
        Ok(_) => Some("is no bcrypt hash: its cost must be from 4 to 31".to_owned()),
        Err(BcryptError::InvalidHash(why)) => Some(format!("is no bcrypt hash: {why}")),
        Err(error) => Some(format!("is no bcrypt hash: {error}")),
    }
}

/// What was said of passwords. A password is known again by a keyed hash of it, its user and its bcrypt hash, with a key
/// that this process alone has.
#[derive(Debug)]
pub(super) struct Passwords {
    key: hmac::Key,
    said: Mutex<Said>,
    /// How many passwords of each address wait, or are being compared.
    waiting: Mutex<HashMap<IpAddr, usize>>,
    one_at_a_time: Semaphore,
}

/// What becomes of who brings a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    Right,
    Wrong,
    /// As many passwords of the address as may be waiting are.
    TooMany,
}

impl Admission {
    const fn of(right: bool) -> Self {
        if right { Self::Right } else { Self::Wrong }
    }
}

/// The place of a password among those that wait; given back when it is dropped.
#[derive(Debug)]
struct Place {
    passwords: Arc<Passwords>,
    peer: IpAddr,
}

impl Place {
    fn take(passwords: &Arc<Passwords>, peer: IpAddr) -> Option<Self> {
        let mut waiting = lock(&passwords.waiting);
        let of_peer = waiting.entry(peer).or_default();
        if *of_peer == WAITING {
            return None;
        }
        *of_peer += 1;
        Some(Self {
            passwords: Arc::clone(passwords),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = lock(&self.passwords.waiting);
        if let Some(of_peer) = waiting.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                waiting.remove(&self.peer);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Proof = [u8; 32];

#[derive(Debug, Default)]
struct Said {
    right: Remembered,
    wrong: Remembered,
}

/// The last so many proofs.
#[derive(Debug, Default)]
struct Remembered {
    order: VecDeque<Proof>,
    proofs: HashMap<Proof, ()>,
}

impl Remembered {
    fn insert(&mut self, proof: Proof) {
        if self.proofs.insert(proof, ()).is_some() {
            return;
        }
        self.order.push_back(proof);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.proofs.remove(&oldest);
        }
    }
}

impl Passwords {
    /// Nothing was said yet.
    pub(super) fn new() -> Result<Self, Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            said: Mutex::default(),
            waiting: Mutex::default(),
            one_at_a_time: Semaphore::new(1),
        })
    }

    /// Whether a request with this `Authorization`, from `peer`, comes from one of `users`. A user who is not there takes
    /// as long as one of the most costly hash whose password is wrong.
    pub(super) async fn admit(
        self: &Arc<Self>,
        users: &Users,
        authorization: Option<&HeaderValue>,
        peer: IpAddr,
    ) -> Admission {
        let Some((user, password)) = authorization.and_then(credentials) else {
            return Admission::Wrong;
        };
        let (hash, exists) = users.hash(&user);
        let proof = self.proof(&user, exists, &hash, &password);
        if let Some(right) = self.said(&proof) {
            return Admission::of(right);
        }
        let Some(place) = Place::take(self, peer) else {
            return Admission::TooMany;
        };
        let guess = Guess {
            place,
            proof,
            password,
            hash,
            exists,
        };
        // A task of its own goes on when the client is gone: when it asks again, the answer is there.
        match tokio::spawn(guess.compare()).await {
            Ok(right) => Admission::of(right),
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "a password was not compared"
                );
                Admission::Wrong
            }
        }
    }

    /// Whether the user exists is a part of it: who is not there has the hash of another.
    fn proof(&self, user: &[u8], exists: bool, hash: &str, password: &[u8]) -> Proof {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user, &[u8::from(exists)], hash.as_bytes(), password] {
            // With its length before it, no part runs into the next.
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut proof = Proof::default();
        proof.copy_from_slice(context.sign().as_ref());
        proof
    }

    fn said(&self, proof: &Proof) -> Option<bool> {
        let said = lock(&self.said);
        let right = said.right.proofs.contains_key(proof);
        (right || said.wrong.proofs.contains_key(proof)).then_some(right)
    }

    fn remember(&self, proof: Proof, right: bool) {
        let mut said = lock(&self.said);
        let list = if right {
            &mut said.right
        } else {
            &mut said.wrong
        };
        list.insert(proof);
    }
}

/// A password that is to be compared.
struct Guess {
    place: Place,
    proof: Proof,
    password: Vec<u8>,
    hash: String,
    exists: bool,
}

impl Guess {
    /// Waits for its turn, and compares.
    async fn compare(self) -> bool {
        let passwords = Arc::clone(&self.place.passwords);
        let Ok(_turn) = passwords.one_at_a_time.acquire().await else {
            return false;
        };
        // Whoever had the turn before may have brought the same password.
        if let Some(right) = passwords.said(&self.proof) {
            return right;
        }
        let compared = tokio::task::spawn_blocking(move || {
            let equal = bcrypt::verify(&self.password, &self.hash).unwrap_or(false);
            debug!("a password was compared with a bcrypt hash");
            let right = equal && self.exists;
            self.place.passwords.remember(self.proof, right);
            right
        });
        compared.await.unwrap_or(false)
    }
}

/// User and password of a header `Basic …`.
fn credentials(authorization: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, encoded) = authorization.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let mut user = STANDARD.decode(encoded).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon + 1);
    user.truncate(colon);
    Some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn header(user: &str, password: &str) -> HeaderValue {
        let pair = STANDARD.encode(format!("{user}:{password}"));
        HeaderValue::from_str(&format!("Basic {pair}")).unwrap()
    }

    #[test]
    fn credentials_are_read_as_rfc_7617_writes_them() {
        let read = |text: &str| credentials(&HeaderValue::from_str(text).unwrap());
        let pair = |user: &str, password: &str| Some((user.into(), password.into()));
        assert_eq!(read("Basic YTpiOmM="), pair("a", "b:c"));
        assert_eq!(read("basic YTo="), pair("a", ""));
        assert_eq!(read("BASIC OmI="), pair("", "b"));
        for odd in [
            "Basic",
            "Basic YQ==",
            "Basic YTpi OmM=",
            "Bearer YTpiOmM=",
            "Basic YTpiOmM",
        ] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[tokio::test]
    async fn who_is_not_there_costs_as_much_as_the_most_costly_user() {
        let costs = [("cheap", 4), ("dear", 5), ("middling", 4)];
        let hashes = costs.map(|(name, cost)| {
            (
                name.to_owned(),
                bcrypt::hash(format!("{name}'s"), cost).unwrap(),
            )
        });
        let users = Users::new(BTreeMap::from(hashes.clone()));
        assert_eq!(users.hash(b"nobody"), (hashes[1].1.clone(), false));
        assert_eq!(users.hash(b"cheap"), (hashes[0].1.clone(), true));
        // Not even the password of that user opens the door to nobody.
        let passwords = Arc::new(Passwords::new().unwrap());
        for (user, password, right) in [
            ("nobody", "dear's", false),
            ("dear", "dear's", true),
            ("dear", "cheap's", false),
            ("", "", false),
        ] {
            let header = header(user, password);
            let found = [
                passwords.admit(&users, Some(&header), PEER).await,
                passwords.admit(&users, Some(&header), PEER).await,
            ];
            assert_eq!(found, [Admission::of(right); 2], "{user}");
        }
        let without = passwords.admit(&users, None, PEER).await;
        assert_eq!(without, Admission::Wrong);
    }

    #[tokio::test]
    async fn who_comes_or_goes_is_not_taken_for_another_with_the_same_hash() {
        let hash = bcrypt::hash("sesame", 4).unwrap();
        let of = |names: &[&str]| {
            let hashes = names.iter().map(|name| ((*name).to_owned(), hash.clone()));
            Users::new(hashes.collect())
        };
        let (one, both) = (of(&["bob"]), of(&["alice", "bob"]));
        let alice = header("alice", "sesame");
        let passwords = Arc::new(Passwords::new().unwrap());
        for (users, expected) in [
            (&one, Admission::Wrong),
            (&both, Admission::Right),
            (&one, Admission::Wrong),
        ] {
            assert_eq!(passwords.admit(users, Some(&alice), PEER).await, expected);
        }
    }

    #[tokio::test]
    async fn an_address_that_guesses_keeps_no_other_out() {
        let users = Users::new(BTreeMap::from([(
            "bob".to_owned(),
            bcrypt::hash("his", 4).unwrap(),
        )]));
        let passwords = Arc::new(Passwords::new().unwrap());
        let turn = passwords.one_at_a_time.acquire().await.unwrap();
        let guesses: Vec<_> = (0..20)
            .map(|n| {
                let (passwords, users) = (Arc::clone(&passwords), users.clone());
                let header = header("bob", &n.to_string());
                tokio::spawn(async move { passwords.admit(&users, Some(&header), PEER).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(lock(&passwords.waiting).get(&PEER), Some(&WAITING));
        // His client waits no longer, then asks again.
        let (his, other) = (header("bob", "his"), IpAddr::from([127, 0, 0, 2]));
        let impatient = passwords.admit(&users, Some(&his), other);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(1), impatient).await;
        assert!(waited.is_err(), "{waited:?}");
        drop(turn);
        let mut refused = 0;
        for guess in guesses {
            refused += usize::from(guess.await.unwrap() == Admission::TooMany);
        }
        assert_eq!(refused, 20 - WAITING);
        while !lock(&passwords.waiting).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(lock(&passwords.said).right.proofs.len(), 1, "his is known");
        let again = passwords.admit(&users, Some(&his), other).await;
        assert_eq!(again, Admission::Right);
    }

    #[test]
    fn guesses_do_not_make_right_passwords_forgotten_and_are_forgotten_themselves() {
        let passwords = Passwords::new().unwrap();
        let proof = |password: &str| passwords.proof(b"user", true, "hash", password.as_bytes());
        passwords.remember(proof("right"), true);
        let guesses = || (0..=REMEMBERED).map(|n| proof(&n.to_string()));
        guesses().for_each(|proof| passwords.remember(proof, false));
        assert_eq!(passwords.said(&proof("right")), Some(true));
        let said: Vec<_> = guesses().map(|proof| passwords.said(&proof)).collect();
        assert_eq!(said[0], None, "the first");
        assert!(said[1..].iter().all(|said| *said == Some(false)));
        // Another boundary between the parts is another proof, and another process has others.
        assert_ne!(
            passwords.proof(b"us", true, "erhash", b"x"),
            passwords.proof(b"user", true, "hash", b"x")
        );
        let other = Passwords::new().unwrap();
        assert_eq!(other.said(&proof("right")), None);
        assert_ne!(other.proof(b"user", true, "hash", b"right"), proof("right"));
    }
}
