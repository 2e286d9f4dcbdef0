"""The content of a report: sentences, tables and plots in their order, the same for the page and for Markdown.

blocks      text, table, plots, section
overview    the first screen
emotion     emotion on unseen speakers
baseline    classifiers without a network
paired      the paired comparison with another run
speaker     attackers, controls, information, speakers unseen by the encoder
training    embedding map and training curves
settings    folds, hashes, settings, versions
comparison  several runs side by side
"""
