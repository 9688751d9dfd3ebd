//! What an authority keeps for its next status: bans, and the experts who approve for it.

use alliance_protocol::{
    authority::{Ban, Expert},
    key::PublicKey,
    limits,
};

use super::{AuthorityDir, AuthorityError};

impl AuthorityDir {
    /// Bans a destination or a recipient, or lifts a ban; it takes effect with the next status. Returns whether that changed
    /// anything.
    ///
    /// # Errors
    /// Too many are banned, or the disk does not permit it.
    pub fn set_ban(&mut self, ban: Ban, banned: bool) -> Result<bool, AuthorityError> {
        if self.book.bans.contains(&ban) == banned {
            return Ok(false);
        }
        if banned && self.book.bans.len() >= limits::BANS_MAX {
            return Err(AuthorityError::TooManyBans);
        }
        if banned {
            self.book.bans.insert(ban);
        } else {
            self.book.bans.remove(&ban);
        }
        self.save()?;
        Ok(true)
    }

    /// Names an expert who approves for the authority, under this name, or no longer where there is none; it takes effect with
    /// the next status. Returns whether that changed anything.
    ///
    /// # Errors
    /// The name is no name, too many are named, or the disk does not permit it.
    pub fn name_expert(&mut self, key: PublicKey, name: Option<&str>) -> Result<bool, AuthorityError> {
        let known = self.book.experts.iter().position(|expert| expert.key == key);
        match (known.and_then(|at| self.book.experts.get_mut(at)), name) {
            (Some(expert), Some(name)) if expert.name == name => return Ok(false),
            (None, None) => return Ok(false),
            (Some(expert), Some(name)) => {
                check_name(name)?;
                name.clone_into(&mut expert.name);
            }
            (Some(_), None) => self.book.experts.retain(|expert| expert.key != key),
            (None, Some(name)) => {
                check_name(name)?;
                if self.book.experts.len() >= limits::EXPERTS_MAX {
                    return Err(AuthorityError::TooManyExperts);
                }
                self.book.experts.push(Expert { key, name: name.to_owned() });
                self.book.experts.sort();
            }
        }
        self.save()?;
        Ok(true)
    }

    /// The experts who will be named by the next status.
    #[must_use]
    pub fn experts(&self) -> &[Expert] {
        &self.book.experts
    }
}

fn check_name(name: &str) -> Result<(), AuthorityError> {
    let good = !name.trim().is_empty() && name.len() <= limits::NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if good { Ok(()) } else { Err(AuthorityError::ExpertName) }
}
