"""What notes of five kinds say, section by section, with room for what they are about.

Words in braces are filled in: `problem`, `condition`, `absent`, `drug`, `dose` and `procedure` are
entities, all others are not. A section has several wordings, of which a hospital uses some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

Wordings = Sequence[str]


class Section(NamedTuple):
    """One part of a note.

    Args:
        heading: as it is written out.
        short: as it is abbreviated.
        wordings: ways to say it.
    """

    heading: str
    short: str
    wordings: Wordings


_PRESENTS: Wordings = (
    "{age} year old {sex} with {condition} presents with {problem} and {problem} .",
    "This {age} year old {sex} was admitted for {problem} , known for {condition} .",
    "{sex} , {age} , came in by ambulance on {date} because of {problem} ; known {condition} .",
    "Admitted {date} . {problem} for {days} days , later {problem} . History of {condition} .",
    "{sex} aged {age} referred by family doctor with worsening {problem} in {condition} .",
)
_DENIES: Wordings = (
    "{absent} . {absent} .",
    "Review of systems : {absent} , {absent} .",
    "{absent} ; otherwise well , sleeping and eating as usual .",
    "The family reports {problem} but {absent} .",
    "Questioned about travel and contacts , nothing to report . {absent} .",
)
_EXAM: Wordings = (
    "Blood pressure {pressure} , heart rate {rate} , afebrile . Signs of {problem} .",
    "Temperature {warmth} , pulse {rate} , saturation {percent} percent on room air . {absent} .",
    "Alert and oriented . Examination shows {problem} . {absent} .",
    "Vital signs stable , {pressure} , {rate} . Unremarkable apart from {problem} .",
    "General condition good , weight {kilos} kg . Looks comfortable . {absent} .",
)
_COURSE: Wordings = (
    "Started on {drug} {dose} {often} with good effect . {procedure} was done on {date} .",
    "Underwent {procedure} without complications . {drug} was stopped because of {problem} .",
    "{problem} improved under {drug} . Seen daily by the team of ward {number} .",
    "After {procedure} the {sex} was moved to ward {number} ; {drug} {dose} given {often} .",
    "Stay of {days} days was uneventful . Plan discussed with the family and agreed .",
)
_MEDICATIONS: Wordings = (
    "{drug} {dose} {often} , {drug} {dose} {often} .",
    "1 . {drug} {dose} {often} 2 . {drug} {dose}",
    "Continue {drug} {dose} {often} . New : {drug} . Allergies : {drug} .",
    "Takes {drug} {dose} at home and no other tablets .",
    "- {drug} {dose} {often} - {drug} as needed for {problem}",
)
_PLAN: Wordings = (
    "Follow up in {days} days in our clinic , earlier if {problem} returns .",
    "{procedure} planned for {date} . Laboratory tests every {days} days .",
    "Return at once with {problem} . Otherwise appointment on {date} .",
    "Increase {drug} to {dose} . Physiotherapy , diet counselling , no driving for {days} days .",
    "Home with support . Letter to family doctor . Phone {number} for questions .",
)
_INDICATION: Wordings = (
    "{problem} in {condition} .",
    "{age} year old {sex} , {problem} , please exclude {problem} .",
    "Status after {procedure} . Question of {problem} .",
    "Known {condition} . {procedure} requested by ward {number} .",
)
_IMAGES: Wordings = (
    "Compared with {date} . Findings consistent with {problem} . {absent} .",
    "Slices of {number} mm after contrast . There is {problem} on the left . {absent} .",
    "Lines and tubes in place . Progression of {problem} , size {number} mm . {absent} .",
    "Technically limited by motion . {absent} . Bones and soft tissues as expected for age .",
)
_OPINION: Wordings = (
    "1 . {problem} . 2 . {absent} .",
    "Picture most in keeping with {problem} ; {procedure} recommended .",
    "Stable compared with the last study . {problem} unchanged .",
    "Suspicion of {problem} , discussed with the ward by phone at {clock} .",
)
_NIGHT: Wordings = (
    "{clock} : {problem} , given {drug} {dose} . Settled .",
    "Slept well . {absent} . Drank {number} ml .",
    "Asked for something against {problem} ; {drug} offered and refused .",
    "{clock} : pulse {rate} , {pressure} . Doctor informed about {problem} .",
    "Wound dry , dressing changed after {procedure} . Family visited .",
)
_QUESTION: Wordings = (
    "Thank you for seeing this {age} year old {sex} with {problem} .",
    "We kindly ask for {procedure} because of {problem} .",
    "Could you please advise on {drug} in view of {condition} and {problem} ?",
    "I would be grateful for your opinion : {problem} since {date} , {absent} .",
)
_HISTORY: Wordings = (
    "{condition} , {condition} , status after {procedure} .",
    "Past history : {condition} since {year} . Retired , lives alone , {number} packs a year .",
    "{condition} ( {year} ) ; {procedure} ( {year} ) ; mother died of {condition} .",
    "Healthy apart from {condition} .",
)

NOTES: Mapping[str, Sequence[Section]] = {
    "discharge": (
        Section("History of present illness", "HPI", _PRESENTS),
        Section("Past medical history", "PMH", _HISTORY),
        Section("Hospital course", "Course", _COURSE),
        Section("Discharge medications", "Meds", _MEDICATIONS),
        Section("Disposition", "Dispo", _PLAN),
    ),
    "radiology": (
        Section("Indication", "Ind", _INDICATION),
        Section("Findings", "Find", _IMAGES),
        Section("Impression", "Imp", _OPINION),
    ),
    "progress": (
        Section("Subjective", "S", _DENIES),
        Section("Objective", "O", _EXAM),
        Section("Assessment", "A", _COURSE),
        Section("Plan", "P", _PLAN),
    ),
    "referral": (
        Section("Reason for referral", "Re", _QUESTION),
        Section("Past medical history", "PMH", _HISTORY),
        Section("Current medications", "Meds", _MEDICATIONS),
    ),
    "nursing": (
        Section("Night", "N", _NIGHT),
        Section("Day", "D", _NIGHT),
        Section("Medications given", "Meds", _MEDICATIONS),
    ),
}
"""The kinds of notes, each with its sections in order."""

DENIALS: Wordings = (
    "no {problem}",
    "denies {problem}",
    "negative for {problem}",
    "without {problem}",
    "{problem} was ruled out",
    "no evidence of {problem}",
    "{problem} absent",
)
"""Ways to say that something is not there; it is a problem's mention all the same."""

ABBREVIATIONS: Mapping[str, str] = {
    "patient": "pt",
    "year old": "yo",
    "history of": "h/o",
    "status after": "s/p",
    "because of": "2/2",
    "blood pressure": "BP",
    "heart rate": "HR",
    "shortness of breath": "SOB",
    "hypertension": "HTN",
    "myocardial infarction": "MI",
    "atrial fibrillation": "AF",
    "congestive heart failure": "CHF",
    "diabetes mellitus": "DM",
    "chronic kidney disease": "CKD",
    "gastroesophageal reflux disease": "GERD",
    "coronary artery": "CA",
    "electrocardiographic": "ECG",
    "computed tomography": "CT",
    "magnetic resonance imaging": "MRI",
    "abdominal": "abd",
    "bilateral": "bilat",
    "chronic": "chr",
    "acute": "ac",
    "without": "w/o",
    "with": "w/",
    "family doctor": "GP",
    "follow up": "f/u",
    "medications": "meds",
    "increased": "incr",
    "decreased": "decr",
    "hydrochlorothiazide": "HCTZ",
    "disease": "dis",
    "syndrome": "sy",
    "urinary tract infection": "UTI",
    "negative": "neg",
    "evidence of": "e/o",
    "examination": "exam",
}
"""What clinicians shorten, inside entities too."""
