//! Reads the messages that somebody sent from the phone app of a number that is used on both (field `smb_message_echoes`).
//!
//! To the provider such a message is one of that number to that person, like ours: it takes a token of the pair, and unless
//! the person has an open service window it counts against the messaging limit. Neither is printed for the app (WHATSAPP.md
//! 3.6 says only that it affects the bookkeeping), and to count what does not count costs little, while the reverse costs a
//! refusal. A window is opened by what a person writes, so an echo opens and closes none.

use serde::Deserialize;

use super::{
    lenient::Scalar,
    payload::{Reader, address_key},
};
use crate::store::echoes::Sent;

#[derive(Deserialize)]
pub(super) struct Echo<'a> {
    #[serde(borrow, default)]
    id: Scalar<'a>,
    #[serde(borrow, default)]
    to: Scalar<'a>,
    #[serde(borrow, default)]
    to_user_id: Scalar<'a>,
    #[serde(borrow, default)]
    timestamp: Scalar<'a>,
    #[serde(borrow, default)]
    group_id: Scalar<'a>,
}

/// Notes one message. One to a group is to nobody in particular.
pub(super) fn read(
    reader: &mut Reader<'_>,
    number: Option<&str>,
    echo: Echo<'_>,
) -> Result<(), &'static str> {
    if echo.group_id.text().is_some() {
        return Ok(());
    }
    let to = [echo.to, echo.to_user_id];
    let recipient = to.into_iter().find_map(|to| address_key(&to.text()?));
    let (Some(provider_id), Some(number), Some(recipient_key)) =
        (echo.id.owned(), number, recipient)
    else {
        return Err("an echo without id, number or recipient");
    };
    let at = reader.time(&echo.timestamp).min(reader.reading.now);
    reader.notices.echoes.push(Sent {
        provider_id,
        phone_number_id: number.to_owned(),
        recipient_key,
        at,
    });
    Ok(())
}
