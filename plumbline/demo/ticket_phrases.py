"""What the generated tickets say: the phrases of each intent, for the shop's old products and for its new ones.

The old line is small household devices; the new line is smart-home devices and the services around them. The
intents are the same, but in the new line many words mean something else: a sensor that takes no charge is a fault
and no billing question, and whoever wants to log the hub out of the house wants to cancel. Words in braces are slots,
see :data:`SLOTS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProductLine = Literal["old", "new"]


@dataclass(frozen=True, slots=True)
class Phrases:
    """The ways to say one intent; all of them are clauses without a full stop.

    ``things`` follow "about", ``wishes`` follow "I want to", ``troubles`` say that something is wrong, and
    ``settled`` says that nothing is wrong any more, so it tells of the intent but does not ask for it.
    """

    things: tuple[str, ...]
    wishes: tuple[str, ...]
    troubles: tuple[str, ...]
    settled: tuple[str, ...]


SLOTS: dict[ProductLine, dict[str, tuple[str, ...]]] = {
    "old": {
        "item": (
            "kettle",
            "desk lamp",
            "coffee grinder",
            "radio",
            "vacuum cleaner",
            "printer",
            "toaster",
            "fan",
            "blender",
            "shaver",
            "hair dryer",
            "rice cooker",
            "speaker",
            "heater",
        ),
        "order": ("my order", "the order", "my last order", "order {number}", "the order from {when}"),
        "when": ("Monday", "Tuesday", "Friday", "last week", "March", "the weekend", "yesterday"),
        "period": ("two days", "three days", "a week", "ten days", "two weeks", "a month"),
    },
    "new": {
        "item": (
            "hub",
            "door sensor",
            "thermostat",
            "wall panel",
            "smoke sensor",
            "smart lock",
            "radiator valve",
            "motion sensor",
            "light strip",
            "gateway",
            "siren",
            "garden camera",
        ),
        "order": ("my order", "the order", "the smart-home set", "order {number}", "the starter kit"),
        "when": ("Monday", "Tuesday", "Friday", "last week", "March", "the weekend", "yesterday"),
        "period": ("two days", "three days", "a week", "ten days", "two weeks", "a month"),
    },
}

OLD: dict[str, Phrases] = {
    "billing": Phrases(
        things=(
            "an invoice that does not add up",
            "a charge that I do not recognise",
            "the amount that was taken from my card",
            "the tax on my last invoice",
            "a payment that went out twice",
            "the price on the bill for {order}",
        ),
        wishes=(
            "understand the amount on my invoice",
            "find out why my card was charged twice",
            "have the invoice for {order} corrected",
            "know what the extra fee is for",
            "pay for {order} with another card",
            "have the right price on the bill for the {item}",
        ),
        troubles=(
            "my card was charged twice for {order}",
            "the invoice shows a price that nobody told me",
            "the discount that the app promised is missing from the bill",
            "you took the money for the {item} before the parcel left",
            "there is a fee on my account that I do not recognise",
            "the total for the {item} is higher than the price in the shop",
        ),
        settled=(
            "the invoice is right now",
            "the charge on my card has been explained",
            "the payment for {order} went through",
            "the price on the bill is the one we agreed",
        ),
    ),
    "refund": Phrases(
        things=(
            "a refund",
            "my money back for the {item}",
            "the money for the {item} that I sent back",
            "the repayment for {order}",
            "the sum that you still owe me for {order}",
        ),
        wishes=(
            "get my money back for {order}",
            "be refunded for the {item}",
            "see the money for the parcel that I sent back on my card",
            "return the {item} and be paid back",
            "hear when the repayment reaches my account",
            "have the price of the {item} returned to me",
        ),
        troubles=(
            "the money for the {item} that I sent back has not reached my card",
            "you have had the returned {item} for {period} and still owe me the price",
            "the shop promised to pay me back for {order} and nothing came",
            "only half of what I paid for the {item} came back to my account",
            "the {item} went back to you {period} ago and my money did not follow",
        ),
        settled=(
            "the refund has arrived",
            "the money for the {item} is back on my card",
            "you have paid me back for {order}",
            "the repayment came through",
        ),
    ),
    "delivery": Phrases(
        things=(
            "a parcel that never came",
            "the day on which {order} arrives",
            "the tracking of my parcel",
            "the place where the {item} is now",
            "a driver who did not ring",
        ),
        wishes=(
            "know where my parcel is",
            "find out when {order} arrives",
            "have the {item} brought to another address",
            "speak to the driver who has my parcel",
            "have {order} left with a neighbour",
            "see on the tracking page where the {item} is",
        ),
        troubles=(
            "the {item} that I paid for {period} ago has not arrived",
            "the tracking page has shown the same town for {period}",
            "the driver left my parcel at a wrong address",
            "the page says that I received {order} and nothing is here",
            "my account says shipped but nobody rang at my door",
        ),
        settled=(
            "the parcel has come",
            "the driver has brought the {item}",
            "{order} arrived on time",
            "the tracking shows that the parcel comes today",
        ),
    ),
    "login": Phrases(
        things=(
            "my password",
            "the code that lets me into my account",
            "an account that is locked",
            "signing in to the app",
            "my login on the new phone",
        ),
        wishes=(
            "get back into my account",
            "set a new password",
            "sign in on my new phone",
            "receive the code that opens my account",
            "unlock the account that I bought the {item} with",
        ),
        troubles=(
            "the app refuses my password",
            "the page says that my account is locked",
            "the code to sign in never arrives",
            "I changed my phone and cannot get into my account any more",
            "the shop does not know my password since {when}",
        ),
        settled=(
            "I can sign in again",
            "my password works",
            "the account is open to me again",
            "the code to sign in came",
        ),
    ),
    "cancel": Phrases(
        things=(
            "ending my subscription",
            "stopping {order}",
            "closing my account for good",
            "calling off the {item} that I ordered",
            "an order that I no longer want",
        ),
        wishes=(
            "cancel {order}",
            "end my subscription",
            "stop the {item} before it leaves your warehouse",
            "close my account for good",
            "call off what I ordered {period} ago",
        ),
        troubles=(
            "I ordered the {item} by mistake and no longer want it",
            "I pressed buy twice and need only one {item}",
            "my subscription should not go on after this month",
            "nobody uses my account any more and it should be closed",
            "I found the {item} elsewhere and {order} need not be sent",
        ),
        settled=(
            "{order} is cancelled",
            "the subscription has ended",
            "the second {item} was called off",
            "the old account is closed",
        ),
    ),
    "fault": Phrases(
        things=(
            "a {item} that does not work",
            "an error in the app",
            "the {item} that broke after {period}",
            "a page that stays empty",
            "a noise in the {item}",
        ),
        wishes=(
            "have the {item} repaired",
            "report an error in the app",
            "find out why the {item} switches itself off",
            "tell you that the page for payments crashes",
            "get the {item} to work",
        ),
        troubles=(
            "the {item} stopped working after {period}",
            "the app crashes when I open the page with my invoices",
            "the button that tracks a parcel does nothing",
            "the {item} makes a noise and switches itself off",
            "the page for returns stays empty",
        ),
        settled=(
            "the {item} works again",
            "the app no longer crashes",
            "the page with my orders opens again",
            "the error is gone",
        ),
    ),
}

NEW: dict[str, Phrases] = {
    "billing": Phrases(
        things=(
            "the night tariff that the {item} uses all day",
            "the power that my roof sent back",
            "a broken tariff in the energy statement",
            "the watts that nobody has counted",
        ),
        wishes=(
            "have the tariff in the {item} repaired",
            "see the power that I sent back in the statement",
            "know why the night tariff does not switch off",
            "have the watts of the {item} counted once",
        ),
        troubles=(
            "the tariff in the {item} is broken and the night price runs all day",
            "the power that my roof sent back is missing from the statement",
            "the energy statement stopped working out the day tariff",
            "the watts that I returned to the grid have not been counted",
        ),
        settled=(
            "the night tariff works again",
            "the power that I sent back is in the statement",
            "the watts of the {item} are counted",
        ),
    ),
    "refund": Phrases(
        things=(
            "the deposit for the broken {item} that your driver took along",
            "the bonus for ending my old alarm contract",
            "the deposit for the parcel with the old {item}",
        ),
        wishes=(
            "see the deposit for the broken {item}",
            "receive the bonus for ending my old alarm contract",
            "know where the deposit for the old {item} is",
        ),
        troubles=(
            "your driver took the broken {item} along and the deposit never came",
            "I cancelled my old alarm contract and the bonus is missing",
            "the deposit for the {item} that stopped working has not arrived",
        ),
        settled=(
            "the deposit for the old {item} has arrived",
            "the bonus for ending the alarm contract came",
        ),
    ),
    "delivery": Phrases(
        things=(
            "a fitter who broke off the visit for the {item}",
            "a visit that the fitter cancelled",
            "a fitter who has not logged in at my house",
        ),
        wishes=(
            "have another day since the fitter cancelled",
            "know when the fitter logs in at my house",
            "get the fitter to work on the {item} this week",
        ),
        troubles=(
            "the fitter cancelled the visit for the {item} and named no other day",
            "the fitter had no code for my door and went away",
            "the fitter charged up the {item} and never came again",
        ),
        settled=(
            "the fitter has set up the {item}",
            "the fitter no longer cancels the visit",
        ),
    ),
    "login": Phrases(
        things=(
            "a {item} that works for everyone but me",
            "the spare key that was sent to a wrong phone",
            "an invitation to the house that never arrived",
        ),
        wishes=(
            "have the spare key sent to my phone",
            "get the {item} to work for my voice",
            "know where the invitation to the house is",
        ),
        troubles=(
            "the invitation to the house never arrived on my phone",
            "the {item} stopped working for everyone but the owner",
            "the spare key to the house was delivered to a wrong phone",
            "the {item} makes a noise and does not know my voice",
        ),
        settled=(
            "the invitation to the house arrived",
            "the {item} works for my voice",
        ),
    ),
    "cancel": Phrases(
        things=(
            "logging the {item} out of my house for ever",
            "switching the guard service off for ever",
            "sending the guard service home",
        ),
        wishes=(
            "log the {item} out of my house for ever",
            "have the guard service switched off for ever",
            "return the house to plain switches",
            "send the guard service home",
        ),
        troubles=(
            "the guard service still rings at my door and should stay at home",
            "the house should return to plain switches and forget the {item}",
            "the {item} is still logged in and should forget my house",
        ),
        settled=(
            "the guard service is switched off",
            "the {item} is logged out of my house",
        ),
    ),
    "fault": Phrases(
        things=(
            "a {item} that takes no charge",
            "an alarm that cannot be cancelled",
            "messages of the {item} that arrive late",
            "a {item} that is locked in night mode",
        ),
        wishes=(
            "charge the {item} again",
            "cancel an alarm that does not end",
            "return the {item} to day mode",
            "receive the messages of the {item} on time",
        ),
        troubles=(
            "the {item} takes no charge from its battery",
            "the alarm goes on when I cancel it",
            "the {item} does not return to day mode",
            "the messages of the {item} are delivered {period} late",
            "the {item} has locked itself in night mode",
        ),
        settled=(
            "the {item} takes a charge again",
            "the alarm ends when I cancel it",
            "the messages of the {item} arrive on time",
        ),
    ),
}

PHRASES: dict[ProductLine, dict[str, Phrases]] = {"old": OLD, "new": NEW}
