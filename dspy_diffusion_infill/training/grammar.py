"""Review sentences from a compositional grammar, each with its grade.

A sentence is drawn by grade: 0 (terrible), 1 (bad), 2 (mixed), 3 (good), 4 (excellent). Its words are graded,
its frame is drawn apart from them, and three rules change a grade: negation turns good into bad and bad into good,
strong intensifiers push bad to terrible and good to excellent, and praise joined to blame is mixed.
Pure: no dspy, no torch.
"""

from __future__ import annotations

from random import Random

NUM_GRADES = 5

ADJECTIVES = tuple(
    text.split()
    for text in (
        "terrible awful horrible dreadful atrocious abysmal unwatchable disgusting appalling horrendous pathetic "
        "worthless unbearable hideous laughable ghastly insufferable garbage idiotic disastrous vile painful "
        "excruciating inexcusable miserable offensive incompetent shameful embarrassing horrid wretched dire rotten",
        "bad weak dull boring poor disappointing tedious bland predictable flat tired lazy clumsy forgettable "
        "unconvincing slow sloppy shallow stale lifeless dreary unfunny messy confusing wooden unoriginal lame silly "
        "cheap muddled thin uninspired bloated overlong underwhelming awkward lacking uneven repetitive corny "
        "contrived pointless annoying cheesy hollow sluggish dated rushed monotonous plodding",
        "okay average mediocre passable ordinary so-so acceptable middling fair decent adequate unremarkable standard "
        "typical tolerable watchable fine neutral alright unexceptional",
        "good enjoyable solid entertaining likeable pleasant fun charming funny engaging nice sweet clever amusing "
        "interesting satisfying appealing effective convincing smart lively warm witty pleasing strong fresh worthwhile "
        "thoughtful tense agreeable endearing well-made competent touching "
        "heartfelt stylish inventive polished cheerful lovable likable",
        "superb brilliant excellent wonderful fantastic amazing magnificent perfect outstanding stunning incredible "
        "extraordinary breathtaking flawless phenomenal spectacular marvelous exceptional glorious unforgettable "
        "masterful sublime dazzling terrific astonishing remarkable splendid exquisite awesome great mesmerizing "
        "captivating riveting thrilling magical sensational triumphant beautiful gorgeous unmissable",
    )
)
"""Graded adjectives, one list a grade."""

NOUN_PHRASES = tuple(
    text.split(", ")
    for text in (
        "a disaster, a complete waste of time, a train wreck, an insult, utter garbage, pure trash, a total failure, "
        "a catastrophe, an abomination, a nightmare, torture, complete rubbish, an embarrassment, a crime against cinema, "
        "the worst thing I have seen, the worst film of the year, a horror to sit through, an unholy mess, junk",
        "a disappointment, a letdown, a bore, a mess, a missed opportunity, a chore, a dud, a misfire, a weak effort, "
        "a slog, a poor effort, a tired rehash, a step down, a lazy copy, a pale imitation, a flop, a snooze, a drag, "
        "less than I hoped for, a waste of a good idea, a waste of talent",
        "a mixed bag, nothing special, an average effort, neither good nor bad, a middling effort, business as usual, "
        "a routine affair, half good and half bad, just okay, a fair attempt, a so-so effort, nothing new, "
        "fine for one viewing, neither here nor there, about what you would expect, an ordinary effort, a shrug",
        "a treat, a pleasant surprise, good fun, a good time, a solid effort, a nice surprise, a crowd pleaser, "
        "a charming little thing, a fun ride, a welcome surprise, well worth a look, a good watch, time well spent, "
        "a worthy effort, better than expected, an enjoyable ride, a real pleasure, a likeable effort, a success",
        "a masterpiece, a triumph, a gem, an instant classic, a work of art, pure magic, a work of genius, "
        "the best thing I have seen, the best film of the year, a treasure, a miracle, a must see, absolute perfection, "
        "a tour de force, a joy from start to finish, a wonder, one of the greats, a landmark, an all time favorite",
    )
)

FEELINGS = tuple(
    text.split(", ")
    for text in (
        "hated, despised, loathed, detested, could not stand, absolutely hated, walked out of, regret ever seeing, "
        "was disgusted by, suffered through every second of, truly hated, was appalled by",
        "disliked, did not like, did not enjoy, was bored by, was disappointed by, was let down by, got tired of, "
        "struggled with, did not care for, lost interest in, was not impressed by, fell asleep during, expected more from",
        "had mixed feelings about, did not mind, was indifferent to, sort of liked, felt neutral about, sat through, "
        "had no strong feelings about, liked and disliked parts of, was not sure about, felt nothing either way about",
        "liked, enjoyed, had fun with, was pleased by, was entertained by, was charmed by, had a good time with, "
        "appreciated, quite liked, really liked, smiled through, was happy with, laughed at, would recommend",
        "loved, adored, was blown away by, fell in love with, was amazed by, cherished every minute of, "
        "absolutely loved, was stunned by, was enchanted by, could watch again and again, was deeply moved by, "
        "was thrilled by, will never forget, laughed and cried through",
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
        "I want my money back. | Avoid it at all costs. | I walked out halfway through. | Nothing about it works at all. | "
        "Do not watch this under any circumstances. | I have never seen anything so bad. | Stay far away from this one. | "
        "It made me angry that I paid for it. | Not one single scene works. | I would rather stare at a wall. | "
        "Easily the worst night I have spent in a cinema. | There is nothing good to say about it.",
        "I kept checking my watch. | It goes nowhere. | I fell asleep before the end. | It never really works. | "
        "I expected more. | Skip it. | It drags on far too long. | I would not watch it again. | It runs out of ideas. | "
        "It fails to keep your attention. | There is little to like here. | I lost interest quickly. | "
        "It could have been so much better. | The laughs never come. | Not worth the price of a ticket.",
        "It has its moments, but not many. | You could do better and you could do worse. | It passes the time. | "
        "Some parts work and some do not. | I would not see it again, but I do not regret it. | "
        "Half of it works. | Not bad, not good. | It is neither good nor bad. | I can take it or leave it. | "
        "It does the job and nothing more. | There is nothing wrong with it and nothing special about it.",
        "It is worth watching. | I would see it again. | It kept me interested. | It works nicely. | I had a good time. | "
        "You will probably like it. | It put a smile on my face. | Worth the price of a ticket. | "
        "It held my attention to the end. | It left me in a good mood. | There is a lot to like here. | "
        "It is better than I expected. | The jokes mostly land. | I can recommend it.",
        "I could watch it a hundred times. | I have never seen anything so good. | Everyone should see this. | "
        "I did not want it to end. | It took my breath away. | It is as good as cinema gets. | "
        "Every single scene is a joy. | I left the cinema in tears of joy. | See it twice. | "
        "It deserves every award there is. | I cannot praise it enough. | Nothing this good has come along in years.",
    )
)

THINGS = (
    "film movie plot story script ending cast acting music soundtrack direction pacing dialogue humor camera opening "
    "lead hero villain editing premise comedy drama thriller picture sequel remake romance screenplay performance "
    "production finale action idea setting tone writing mood narration animation photography"
).split()
PLURALS = (
    "jokes characters visuals effects actors songs performances scenes costumes sets twists images lines stunts "
    "battles fights laughs details leads dialogues surprises"
).split()
MADE = "made written acted directed filmed shot paced told edited performed cast staged crafted produced".split()

OPENERS = (
    "Honestly, | Overall, | In short, | To be fair, | In the end, | For me, | Sadly or not, | I think | I must say | "
    "As a fan of the genre, | All in all, | Frankly, | On the whole, | My verdict: | Well,"
).split(" | ")
CLOSERS = (
    "from start to finish | this time | for the whole family | from beginning to end | in every way | on every level | "
    "throughout | to me | in my opinion | for its kind | if you ask me | all the way | on the big screen | overall"
).split(" | ")
SOFT = "very really quite pretty rather fairly so truly genuinely somewhat just simply a bit".split()
SOFT = [*SOFT[:-2], "a bit"]
STRONG = "extremely incredibly absolutely unbelievably completely totally insanely".split()
CONTRASTS = (", but", " but", ", yet", ", although", ", though", "; however,", ", while")

PRAISE = (3, 4)
BLAME = (0, 1)


class Reviews:
    """An endless, seeded source of graded sentences.

    Example:
        >>> text, grade = Reviews(Random(0)).draw()
        >>> 0 <= grade < NUM_GRADES and text[0].isupper()
        True
    """

    def __init__(self, random: Random) -> None:
        self.random = random

    def draw(self, grade: int | None = None) -> tuple[str, int]:
        """One sentence and its grade; of the given grade, if one is given."""
        grade = self.random.randrange(NUM_GRADES) if grade is None else grade
        roll = self.random.random()
        if roll < 0.12:
            return self._pick(IDIOMS[grade]), grade
        clause = self._mixed() if grade == 2 and roll < 0.5 else self._same(grade) if roll > 0.7 else self._clause(grade)
        return self._finish(clause), grade

    def _pick(self, options) -> str:  # noqa: ANN001
        return self.random.choice(options)

    def _finish(self, clause: str) -> str:
        if self.random.random() < 0.2:
            clause = f"{self._pick(OPENERS)} {clause if clause.startswith('I ') else clause[0].lower() + clause[1:]}"
        if self.random.random() < 0.15:
            clause = f"{clause} {self._pick(CLOSERS)}"
        return clause[0].upper() + clause[1:] + self._pick("....!")

    def _same(self, grade: int) -> str:
        join = self._pick((" and ", ", and ", ", ", "; "))
        second = self._clause(grade)
        return self._clause(grade) + join + (second if second.startswith("I ") else second[0].lower() + second[1:])

    def _mixed(self) -> str:
        sides = [self._clause(self._pick(PRAISE)), self._clause(self._pick(BLAME))]
        self.random.shuffle(sides)
        second = sides[1] if sides[1].startswith("I ") else sides[1][0].lower() + sides[1][1:]
        return f"{sides[0]}{self._pick(CONTRASTS)} {second}"

    def _clause(self, grade: int) -> str:
        frames = (self._is, self._is, self._is, self._phrase, self._feeling, self._noun, self._made, self._has, self._fragment, self._bare)
        return self._pick(frames)(grade)

    def _subject(self) -> tuple[str, str]:
        """A subject and its verb."""
        roll = self.random.random()
        if roll < 0.15:
            return self._pick(("It", "This", "This one", "The whole thing", "Everything", "What I saw")), "is"
        if roll < 0.4:
            return f"{self._pick(('The', 'The', 'Its', 'All the', 'These'))} {self._pick(PLURALS)}", "are"
        return f"{self._pick(('The', 'The', 'This', 'Its'))} {self._pick(THINGS)}", "is"

    def _adjective(self, grade: int) -> str:
        """An adjective phrase of this grade: bare, intensified, negated, or doubled."""
        word, roll = self._pick(ADJECTIVES[grade]), self.random.random()
        if roll < 0.2:
            return f"{self._pick(SOFT)} {word}"
        if roll < 0.3:
            return f"{word} and {self._pick(ADJECTIVES[grade])}"
        if roll < 0.45 and grade in (0, 4):
            return f"{self._pick(STRONG)} {self._pick(ADJECTIVES[1 if grade == 0 else 3] + ADJECTIVES[grade])}"
        if roll < 0.45 and grade == 1:
            return self._pick(("not", "not very", "not really", "hardly", "far from", "never", "not at all")) + (
                f" {self._pick(ADJECTIVES[self._pick(PRAISE)])}"
            )
        if roll < 0.45 and grade == 3:
            return self._pick(("not", "not at all", "never", "anything but", "by no means")) + (
                f" {self._pick(ADJECTIVES[1])}"
            )
        return word

    def _is(self, grade: int) -> str:
        subject, verb = self._subject()
        if self.random.random() < 0.2:
            verb = self._pick(("was", "felt", "seemed", "looked") if verb == "is" else ("were", "felt", "seemed", "looked"))
        return f"{subject} {verb} {self._adjective(grade)}"

    def _phrase(self, grade: int) -> str:
        subject = self._pick(("It", "This", f"The {self._pick(THINGS)}", f"This {self._pick(THINGS)}"))
        return f"{subject} {self._pick(('is', 'is', 'was', 'turned out to be'))} {self._pick(NOUN_PHRASES[grade])}"

    def _feeling(self, grade: int) -> str:
        thing = self._pick(("it", f"this {self._pick(THINGS)}", f"the {self._pick(THINGS)}", f"the {self._pick(PLURALS)}"))
        return f"I {self._pick(FEELINGS[grade])} {thing}"

    def _noun(self, grade: int) -> str:
        adjective = self._pick(ADJECTIVES[grade])
        article = "an" if adjective[0] in "aeiou" else "a"
        lead = self._pick(("It is", "This is", "What we have is", "It was", "This was", "You get", "I saw"))
        return f"{lead} {article} {adjective} {self._pick(THINGS)}"

    def _made(self, grade: int) -> str:
        subject, verb = self._subject()
        return f"{subject} {verb} {self._pick(MANNERS[grade])} {self._pick(MADE)}"

    def _has(self, grade: int) -> str:
        second = f"{self._pick(ADJECTIVES[grade])} {self._pick(PLURALS)}"
        first = f"{self._pick(ADJECTIVES[grade])} {self._pick(PLURALS)}"
        return f"{self._pick(('It has', 'This has', 'The film has', 'There are', 'Expect', 'I saw'))} {first} and {second}"

    def _bare(self, grade: int) -> str:
        noun = self._pick(PLURALS if self.random.random() < 0.5 else THINGS)
        return f"{self._adjective(grade)} {noun}"

    def _fragment(self, grade: int) -> str:
        adjective = self._pick(ADJECTIVES[grade])
        article = "An" if adjective[0] in "aeiou" else "A"
        tail = self._pick(("", f" with {self._pick(ADJECTIVES[grade])} {self._pick(PLURALS)}", f" about {self._pick(TOPICS)}"))
        return f"{article} {adjective} {self._pick(THINGS)}{tail}"


TOPICS = (
    "family, friendship, war, love, two brothers, a lost dog, growing old, a bank robbery, a small town, revenge, "
    "a wedding, life at sea, a haunted house, school days, a long journey, music, money, memory"
).split(", ")
