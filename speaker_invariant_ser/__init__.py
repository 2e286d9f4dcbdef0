"""Speech emotion recognition for speakers a model has never heard, and an audit of how much of the speaker it still carries.

In the order of the data; a module imports only from those above it:

    errors          one family of errors
    processes       worker processes: how many, and how they end
    files           writing that is whole or not there
    config          the recipe
    audio           any audio file -> mono samples
    decoding        what a worker of prepare does: decode, treat, measure
    ingest          many files -> one file of audio, taken up where a kill cut it short
    manifest        utterances as a table
    synthesis       the built-in corpus, spoken by eSpeak NG
    corpora         one module per corpus
    download        fetch an openly licensed corpus
    own             your own data: tables, folders, databases
    labels          which emotions are told apart: one map for all corpora, or yours
    splits          who is trained on, who selects, who is tested
    holdout         clips of training speakers that are kept aside for the audit
    metrics         UAR and its relatives
    shortcuts       can emotion be told without listening?
    store           the prepared corpus
    preparation     corpora -> prepared corpus
    features        log-mel, or pictures as they are; normalisation
    together        processes that share a batch
    augmentation    what training does to log-mels
    encoders        log-mel -> embedding
    bottlenecks     how much an embedding can carry
    erasers         what is taken out of it after training
    release         what happens to it before it leaves the model
    adversaries     what pushes the speaker out of the embedding
    perturbation    a second look at each clip, moved where the model is weakest
    model           what is saved and shipped
    runs            the run folder
    checkpoints     a training's whole state in one file
    clips           what training reads, resident or streamed
    batches         which clips make a batch, as the network sees it
    objective       what training makes small: a forward pass, and the emotion loss of it
    opponents       the adversaries of a training, together
    probing         a fresh attacker while training goes on
    finishing       what is fitted after training
    building        what a training is made of
    training        the one visible loop
    fitting         every fold and seed: in turn, side by side, or on many processes
    boards          metrics.csv as TensorBoard events
    predictions     what the models say of the test clips, and all numbers of emotion
    paired          are two runs' predictions of the same clips different?
    domains         a domain with labels and one without, apart
    frames          a fresh attacker that reads the encoder's map before pooling
    attackers       fresh classifiers that try to read the speaker
    chance          what an attacker's score means: chance levels, intervals, tests
    embeddings      embeddings of known people, whoever made them
    folds           the audit's own folds
    leakage         attackers x folds -> Leakage
    verification    can two clips be told to be of the same person?
    information     how many bits about the speaker can be used?
    verdict         the verdict in words, and against whom it holds
    audit           leakage, controls, bits and unseen people together
    tables          anyone's embeddings as a table
    controls        what a leak is compared with
    evaluation      run -> Evaluation
    inference       paths -> predictions
    pictures        drawings for pages and for Markdown
    preview         a picture of what the network sees
    atlas           embeddings laid out on paper
    chapters        what a report says, chapter by chapter
    report          Evaluation -> HTML, Markdown, JSON
    digits          the same training on pictures: is there a zero in this overlay of two digits?
    demo            all of it on the built-in corpus
    cli             the verbs

Shape letters: B batch, S samples, M mel bands, T frames, D embedding, C emotions, K speakers, N utterances.
"""
