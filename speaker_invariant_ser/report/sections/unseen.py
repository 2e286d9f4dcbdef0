"""Sections on speakers that the encoder was not trained on, and on several utterances of one person."""

from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.evaluation.summary_parts import Speaker
from speaker_invariant_ser.evaluation.unseen_parts import PredictedEmotion, Unseen, Verification
from speaker_invariant_ser.report.sections.blocks import Block, Section, Text
from speaker_invariant_ser.report.unseen_tables import clips_table, predicted_emotion_table, scorers_table, unseen_table

ABOUT_VERIFICATION = (
    "Verification decides whether two utterances are of the same speaker: an equal error rate (EER) of 50 % is chance, 0 % is "
    "perfect. C_llr^min is the cost of the scores over all thresholds after the best monotonic calibration, bits: 1 is chance, "
    "0 is perfect (Brümmer and du Preez, 2006). Both scorers were fitted on other speakers only; the trained one was chosen as "
    "the headline in advance. Linkability ranges from 0, two utterances cannot be linked, to 1."
)
ABOUT_SPEAKERS = (
    " Averages hide single speakers: the equal error rate of each speaker's trials is clipped at 50 % before it is averaged, so "
    "that nobody whom scores mislead about makes up for somebody whom they reveal. The rank is the share of the other enrolled "
    "speakers whom the attacker takes to be more likely than the true one, averaged over utterances: 0 % if the true speaker is "
    "always first. Even on noise, the lowest value of several speakers is below chance, and the clipped mean slightly."
)
ABOUT_JUDGE = (
    " The judge is another encoder, whose embeddings of the recordings themselves show what could be recognised without any "
    "protection."
)
ABOUT_LINKAGE = (
    " Linkage asks whether an embedding matches a voice print, which anybody can make from recordings of a person: a map from "
    "embeddings to the judge's voice prints is learned on other speakers. What it predicts is compared with voice prints made of "
    "other recordings. AUC is the probability that a speaker's own voice print fits better than that of another."
)


def predicted_emotion_section(predicted: PredictedEmotion) -> Section:
    """Return what the predicted emotions alone say about test speakers."""
    about = (
        "Predictions show whose emotions are recognised badly. A logistic regression was trained on nothing but the predicted "
        f"emotion of each utterance of {counted(predicted.speakers, 'test speaker')}, those of all folds; no model predicts "
        "speakers that it was trained on. Where models of different folds differ in what they predict, that counts as well. What "
        "a model releases beside the emotion can only add to what its predictions reveal."
    )
    return Section("Predicted emotions of unseen speakers", [Text(about), predicted_emotion_table(predicted)], 3)


def unseen_section(unseen: Unseen | None) -> Section:
    """Return verification, and attackers trained on speakers that the encoder was not trained on."""
    title = "Verification" if unseen and unseen.accuracy is None else "Speakers unseen by the encoder"
    if unseen is None:
        return Section(title, [Text("Not measured: too few speakers.")], 3)
    about = about_verification(unseen.verification) if unseen.verification else ""
    if unseen.accuracy is not None:
        speakers = counted(unseen.speakers or 0, "speaker")
        about += (
            f" The closed-form attackers were also trained on {speakers} that the encoder was not trained on, "
            f"{counted(unseen.decisions or 0, 'decision')}. These are a fold's test speakers and, if there are any, its dev "
            "speakers, which selected the epoch."
        )
    blocks: list[Block] = [Text(about.strip()), unseen_table(unseen)]
    if unseen.verification:
        blocks.append(scorers_table(unseen.verification))
    return Section(title, blocks, 3)


def about_verification(verification: Verification) -> str:
    """Say what verification measures, with which trials."""
    about = ABOUT_VERIFICATION
    about += f" Pairs of utterances: {verification.target_trials:,} of one speaker, {verification.nontarget_trials:,} of two."
    if verification.trained.same_emotion is None:
        about += (
            " No emotion has pairs both of one and of two speakers, so that these rates may be about the emotion as much as "
            "about the speaker."
        )
    about += ABOUT_SPEAKERS if verification.per_speaker or verification.rank else ""
    about += ABOUT_JUDGE if verification.judge else ""
    return about + (ABOUT_LINKAGE if verification.linkage else "")


def clips_section(speaker: Speaker) -> Section:
    """Return what several utterances of one person reveal."""
    about = (
        "An attacker who knows that several utterances are of one person adds up what they say. Identification: the log "
        "posteriors of the strongest closed-form attacker are summed over scored utterances that it was not fitted on; chance is "
        "what the true emotions of the same utterances give. Verification (EER): embeddings are averaged over as many utterances "
        "on both sides of a trial, of speakers whom the scorer was not fitted on; chance is 50 %. Utterances are grouped at "
        "random, ten times; "
        "intervals are over speakers. The number of groups is of those without an utterance in common. A dash means that no two "
        "speakers have enough utterances."
    )
    table = clips_table(speaker)
    assert table
    return Section("Several utterances of one person", [Text(about), table], 3)
