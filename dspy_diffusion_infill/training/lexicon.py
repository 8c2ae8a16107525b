"""Words and phrases of movie reviews, graded from 0 (terrible) to 4 (excellent). Data only."""

from __future__ import annotations

ADJECTIVES = tuple(
    text.split()
    for text in (
        "terrible awful horrible dreadful atrocious abysmal unwatchable disgusting appalling horrendous "
        "pathetic worthless unbearable hideous laughable ghastly insufferable garbage idiotic disastrous "
        "vile painful excruciating inexcusable miserable offensive incompetent shameful embarrassing "
        "horrid wretched dire rotten",
        "bad weak dull boring poor disappointing tedious bland predictable flat tired lazy clumsy "
        "forgettable unconvincing slow sloppy shallow stale lifeless dreary unfunny messy confusing "
        "wooden unoriginal lame silly cheap muddled thin uninspired bloated overlong underwhelming "
        "awkward lacking uneven repetitive corny contrived pointless annoying cheesy hollow sluggish "
        "dated rushed monotonous plodding",
        "okay average mediocre passable ordinary so-so acceptable middling fair decent adequate "
        "unremarkable standard typical tolerable watchable fine neutral alright unexceptional",
        "good enjoyable solid entertaining likeable pleasant fun charming funny engaging nice sweet "
        "clever amusing interesting satisfying appealing effective convincing smart lively warm witty "
        "pleasing strong fresh worthwhile thoughtful tense agreeable endearing well-made competent "
        "touching heartfelt stylish inventive polished cheerful lovable likable",
        "superb brilliant excellent wonderful fantastic amazing magnificent perfect outstanding stunning "
        "incredible extraordinary breathtaking flawless phenomenal spectacular marvelous exceptional "
        "glorious unforgettable masterful sublime dazzling terrific astonishing remarkable splendid "
        "exquisite awesome great mesmerizing captivating riveting thrilling magical sensational "
        "triumphant beautiful gorgeous unmissable",
    )
)
"""Graded adjectives, one list a grade."""
NOUN_PHRASES = tuple(
    text.split(", ")
    for text in (
        "a disaster, a complete waste of time, a train wreck, an insult, utter garbage, pure trash, a "
        "total failure, a catastrophe, an abomination, a nightmare, torture, complete rubbish, an "
        "embarrassment, a crime against cinema, the worst thing I have seen, the worst film of the year, "
        "a horror to sit through, an unholy mess, junk",
        "a disappointment, a letdown, a bore, a mess, a missed opportunity, a chore, a dud, a misfire, a "
        "weak effort, a slog, a poor effort, a tired rehash, a step down, a lazy copy, a pale imitation, "
        "a flop, a snooze, a drag, less than I hoped for, a waste of a good idea, a waste of talent",
        "a mixed bag, nothing special, an average effort, neither good nor bad, a middling effort, "
        "business as usual, a routine affair, half good and half bad, just okay, a fair attempt, a so-so "
        "effort, nothing new, fine for one viewing, neither here nor there, about what you would expect, "
        "an ordinary effort, a shrug",
        "a treat, a pleasant surprise, good fun, a good time, a solid effort, a nice surprise, a crowd "
        "pleaser, a charming little thing, a fun ride, a welcome surprise, well worth a look, a good "
        "watch, time well spent, a worthy effort, better than expected, an enjoyable ride, a real "
        "pleasure, a likeable effort, a success",
        "a masterpiece, a triumph, a gem, an instant classic, a work of art, pure magic, a work of "
        "genius, the best thing I have seen, the best film of the year, a treasure, a miracle, a must "
        "see, absolute perfection, a tour de force, a joy from start to finish, a wonder, one of the "
        "greats, a landmark, an all time favorite",
    )
)

FEELINGS = tuple(
    text.split(", ")
    for text in (
        "hated, despised, loathed, detested, could not stand, absolutely hated, walked out of, regret "
        "ever seeing, was disgusted by, suffered through every second of, truly hated, was appalled by",
        "disliked, did not like, did not enjoy, was bored by, was disappointed by, was let down by, got "
        "tired of, struggled with, did not care for, lost interest in, was not impressed by, fell asleep "
        "during, expected more from",
        "had mixed feelings about, did not mind, was indifferent to, sort of liked, felt neutral about, "
        "sat through, had no strong feelings about, liked and disliked parts of, was not sure about, felt "
        "nothing either way about",
        "liked, enjoyed, had fun with, was pleased by, was entertained by, was charmed by, had a good "
        "time with, appreciated, quite liked, really liked, smiled through, was happy with, laughed at, "
        "would recommend",
        "loved, adored, was blown away by, fell in love with, was amazed by, cherished every minute of, "
        "absolutely loved, was stunned by, was enchanted by, could watch again and again, was deeply "
        "moved by, was thrilled by, will never forget, laughed and cried through",
    )
)

MANNERS = tuple(
    text.split(", ")
    for text in (
        "terribly, horribly, awfully, dreadfully, atrociously, abysmally, disgracefully, appallingly",
        "poorly, badly, weakly, clumsily, lazily, carelessly, blandly, sloppily",
        "passably, adequately, acceptably, averagely, plainly, routinely",
        "well, nicely, cleverly, skillfully, neatly, competently, charmingly, smartly, capably",
        "superbly, brilliantly, beautifully, masterfully, perfectly, wonderfully, flawlessly, magnificently",
    )
)

IDIOMS = tuple(
    text.split(" | ")
    for text in (
        "I want my money back. | Avoid it at all costs. | I walked out halfway through. | Nothing about "
        "it works at all. | Do not watch this under any circumstances. | I have never seen anything so "
        "bad. | Stay far away from this one. | It made me angry that I paid for it. | Not one single "
        "scene works. | I would rather stare at a wall. | Easily the worst night I have spent in a "
        "cinema. | There is nothing good to say about it.",
        "I kept checking my watch. | It goes nowhere. | I fell asleep before the end. | It never really "
        "works. | I expected more. | Skip it. | It drags on far too long. | I would not watch it again. | "
        "It runs out of ideas. | It fails to keep your attention. | There is little to like here. | I "
        "lost interest quickly. | It could have been so much better. | The laughs never come. | Not worth "
        "the price of a ticket.",
        "It has its moments, but not many. | You could do better and you could do worse. | It passes the "
        "time. | Some parts work and some do not. | I would not see it again, but I do not regret it. | "
        "Half of it works. | Not bad, not good. | It is neither good nor bad. | I can take it or leave "
        "it. | It does the job and nothing more. | There is nothing wrong with it and nothing special "
        "about it.",
        "It is worth watching. | I would see it again. | It kept me interested. | It works nicely. | I "
        "had a good time. | You will probably like it. | It put a smile on my face. | Worth the price of "
        "a ticket. | It held my attention to the end. | It left me in a good mood. | There is a lot to "
        "like here. | It is better than I expected. | The jokes mostly land. | I can recommend it.",
        "I could watch it a hundred times. | I have never seen anything so good. | Everyone should see "
        "this. | I did not want it to end. | It took my breath away. | It is as good as cinema gets. | "
        "Every single scene is a joy. | I left the cinema in tears of joy. | See it twice. | It deserves "
        "every award there is. | I cannot praise it enough. | Nothing this good has come along in years.",
    )
)

THINGS = (
    "film movie plot story script ending cast acting music soundtrack direction pacing dialogue humor "
    "camera opening lead hero villain editing premise comedy drama thriller picture sequel remake romance "
    "screenplay performance production finale action idea setting tone writing mood narration animation "
    "photography"
).split()

PLURALS = (
    "jokes characters visuals effects actors songs performances scenes costumes sets twists images lines "
    "stunts battles fights laughs details leads dialogues surprises"
).split()

MADE = (
    "made written acted directed filmed shot paced told edited performed cast staged crafted produced"
).split()

TOPICS = (
    "family, friendship, war, love, two brothers, a lost dog, growing old, a bank robbery, a small town, "
    "revenge, a wedding, life at sea, a haunted house, school days, a long journey, music, money, memory"
).split(", ")

OPENERS = (
    "Honestly, | Overall, | In short, | To be fair, | In the end, | For me, | Sadly or not, | I think | I "
    "must say | As a fan of the genre, | All in all, | Frankly, | On the whole, | My verdict: | Well,"
).split(" | ")

CLOSERS = (
    "from start to finish | this time | for the whole family | from beginning to end | in every way | on "
    "every level | throughout | to me | in my opinion | for its kind | if you ask me | all the way | on "
    "the big screen | overall"
).split(" | ")

SOFT = (
    "very, really, quite, pretty, rather, fairly, so, truly, genuinely, somewhat, just, simply, a bit"
).split(", ")

STRONG = ("extremely incredibly absolutely unbelievably completely totally insanely").split()

CONTRASTS = (", but", " but", ", yet", ", although", ", though", "; however,", ", while")
