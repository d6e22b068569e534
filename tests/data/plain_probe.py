"""Plain sentences of the embedded corpus's vocabulary, made without its generator: what a user types first.

Five tables of whole phrases, one column a language, are put side by side by order alone. No rule of `jaxnmt.data.phrases` is used,
so that a fault of its grammar cannot hide here.
"""

from __future__ import annotations

import random
from collections.abc import Collection

from num2words import num2words

LANGUAGES = ("en", "fr", "de", "es", "tr")
SENTENCES = 300

# A line: English | French | German | Spanish | Turkish | s(ingular) or p(lural).
PEOPLE = """
the baker | le boulanger | der Bäcker | el panadero | fırıncı | s
the doctor | le médecin | der Arzt | el médico | doktor | s
the queen | la reine | die Königin | la reina | kraliçe | s
the engineer | l'ingénieur | der Ingenieur | el ingeniero | mühendis | s
my brother | mon frère | mein Bruder | mi hermano | erkek kardeşim | s
our neighbor | notre voisin | unser Nachbar | nuestro vecino | komşumuz | s
my sister | ma sœur | meine Schwester | mi hermana | kız kardeşim | s
the children | les enfants | die Kinder | los niños | çocuklar | p
our friends | nos amis | unsere Freunde | nuestros amigos | arkadaşlarımız | p
the students | les étudiants | die Studenten | los estudiantes | öğrenciler | p
my parents | mes parents | meine Eltern | mis padres | annemle babam | p
the women | les femmes | die Frauen | las mujeres | kadınlar | p
"""
# The same, with the place where one is and, in Turkish, the one where one arrives.
PLACES = """
Vienna | à Vienne | in Wien | Viena | Viyana'da | Viyana'ya
Paris | à Paris | in Paris | París | Paris'te | Paris'e
London | à Londres | in London | Londres | Londra'da | Londra'ya
Rome | à Rome | in Rom | Roma | Roma'da | Roma'ya
Warsaw | à Varsovie | in Warschau | Varsovia | Varşova'da | Varşova'ya
Athens | à Athènes | in Athen | Atenas | Atina'da | Atina'ya
Germany | en Allemagne | in Deutschland | Alemania | Almanya'da | Almanya'ya
Italy | en Italie | in Italien | Italia | İtalya'da | İtalya'ya
Japan | au Japon | in Japan | Japón | Japonya'da | Japonya'ya
Portugal | au Portugal | in Portugal | Portugal | Portekiz'de | Portekiz'e
Switzerland | en Suisse | in der Schweiz | Suiza | İsviçre'de | İsviçre'ye
"""
OBJECTS = """
red chairs | chaises rouges | rote Stühle | sillas rojas | kırmızı sandalye
black hats | chapeaux noirs | schwarze Hüte | sombreros negros | siyah şapka
white shirts | chemises blanches | weiße Hemden | camisas blancas | beyaz gömlek
blue glasses | verres bleus | blaue Gläser | vasos azules | mavi bardak
small boxes | petites boîtes | kleine Kisten | cajas pequeñas | küçük kutu
new books | nouveaux livres | neue Bücher | nuevos libros | yeni kitap
big pictures | grands tableaux | große Bilder | cuadros grandes | büyük tablo
letters | lettres | Briefe | cartas | mektup
bicycles | vélos | Fahrräder | bicicletas | bisiklet
yellow flowers | fleurs jaunes | gelbe Blumen | flores amarillas | sarı çiçek
green lamps | lampes vertes | grüne Lampen | lámparas verdes | yeşil lamba
"""
# What is counted besides.
MEASURES = """
euros | euros | Euro | euros | euro
Swiss francs | francs suisses | Schweizer Franken | francos suizos | İsviçre frangı
US dollars | dollars des États-Unis | US-Dollar | dólares estadounidenses | ABD doları
Japanese yen | yens japonais | Japanische Yen | yenes japoneses | Japon yeni
kilometers | kilomètres | Kilometer | kilómetros | kilometre
days | jours | Tage | días | gün
months | mois | Monate | meses | ay
minutes | minutes | Minuten | minutos | dakika
"""
# A verb and its object: V is the verb's place. English and the others in the singular, then in the plural; Turkish has one form.
DEEDS = """
buys, buy | achète, achètent | kauft, kaufen | compra, compran | satın alıyor
bought, bought | a acheté, ont acheté | hat, haben; gekauft | compró, compraron | satın aldı
will buy, will buy | achètera, achèteront | wird, werden; kaufen | comprará, comprarán | satın alacak
sells, sell | vend, vendent | verkauft, verkaufen | vende, venden | satıyor
sold, sold | a vendu, ont vendu | hat, haben; verkauft | vendió, vendieron | sattı
found, found | a trouvé, ont trouvé | hat, haben; gefunden | encontró, encontraron | buldu
loses, lose | perd, perdent | verliert, verlieren | pierde, pierden | kaybediyor
will find, will find | trouvera, trouveront | wird, werden; finden | encontrará, encontrarán | bulacak
repaired, repaired | a réparé, ont réparé | hat, haben; repariert | reparó, repararon | tamir etti
"""
STAYS = """
lives, live | vit, vivent | lebt, leben | vive, viven | yaşıyor
lived, lived | a vécu, ont vécu | hat, haben; gelebt | vivió, vivieron | yaşadı
works, work | travaille, travaillent | arbeitet, arbeiten | trabaja, trabajan | çalışıyor
worked, worked | a travaillé, ont travaillé | hat, haben; gearbeitet | trabajó, trabajaron | çalıştı
will work, will work | travaillera, travailleront | wird, werden; arbeiten | trabajará, trabajarán | çalışacak
waits, wait | attend, attendent | wartet, warten | espera, esperan | bekliyor
will stay, will stay | restera, resteront | wird, werden; bleiben | permanecerá, permanecerán | kalacak
will arrive, will arrive | arrivera, arriveront | wird, werden; ankommen | llegará, llegarán | varacak
arrives, arrive | arrive, arrivent | kommt, kommen; an | llega, llegan | varıyor
"""
MONTHS = """
January | janvier | Januar | enero | Ocak
March | mars | März | marzo | Mart
May | mai | Mai | mayo | Mayıs
July | juillet | Juli | julio | Temmuz
August | août | August | agosto | Ağustos
September | septembre | September | septiembre | Eylül
October | octobre | Oktober | octubre | Ekim
December | décembre | Dezember | diciembre | Aralık
"""
HOURS = """
two | deux | zwei | las dos | ikiyi
three | trois | drei | las tres | üçü
four | quatre | vier | las cuatro | dördü
seven | sept | sieben | las siete | yediyi
twelve | douze | zwölf | las doce | on ikiyi
five | cinq | fünf | las cinco | beşi
six | six | sechs | las seis | altıyı
eight | huit | acht | las ocho | sekizi
nine | neuf | neun | las nueve | dokuzu
ten | dix | zehn | las diez | onu
eleven | onze | elf | las once | on biri
"""


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def number(value: int) -> list[str]:
    """Return a number in all languages; Turkish writes its words apart, which num2words does not."""
    spoken = [num2words(value, lang=language).replace(",", "") for language in LANGUAGES[:-1]]
    turkish = []
    for unit, name in ((1000, "bin"), (100, "yüz"), (10, ""), (1, "")):
        digit, value = divmod(value, unit)
        if digit and name:
            turkish += [num2words(digit, lang="tr")] * (digit > 1) + [name]
        elif digit:
            turkish.append(num2words(digit * unit, lang="tr"))
    return [*spoken, " ".join(turkish)]


def count(dice: random.Random) -> list[str]:
    """Return a number that has no gender: 2 to 199, none that ends in 1."""
    return number(dice.choice([n for n in (*range(2, 31), *range(2, 200)) if n % 10 != 1]))


def join(*columns: list[str]) -> list[str]:
    return [" ".join(words) for words in zip(*columns, strict=True)]


def finite(verb: str, plural: bool) -> tuple[str, str]:
    """Return the verb that agrees with its subject, and what ends a German clause."""
    forms, _, end = verb.partition(";")
    return forms.split(",")[plural].strip(), end.strip()


def deed(dice: random.Random) -> list[str]:
    """Return subject, verb, object."""
    *who, agreement = dice.choice(rows(PEOPLE))
    *verbs, turkish = dice.choice(rows(DEEDS))
    things = join(count(dice), dice.choice(rows(OBJECTS)))
    said = [finite(verb, agreement == "p") for verb in verbs]
    phrases = [f"{subject} {verb} {thing} {end}".rstrip() for subject, (verb, end), thing in zip(who, said, things, strict=False)]
    return [*phrases, f"{who[4]} {things[4]} {turkish}"]


def stay(dice: random.Random) -> list[str]:
    """Return subject, verb, place."""
    *who, agreement = dice.choice(rows(PEOPLE))
    *verbs, turkish = dice.choice(rows(STAYS))
    english, french, german, spanish, where, whither = dice.choice(rows(PLACES))
    arrives = "arrive" in verbs[0]
    said = [finite(verb, agreement == "p") for verb in verbs]
    places = [f"in {english}", french, german, f"{'a' if arrives else 'en'} {spanish}"]
    phrases = [f"{subject} {verb} {place} {end}".rstrip() for subject, (verb, end), place in zip(who, said, places, strict=False)]
    return [*phrases, f"{who[4]} {whither if arrives else where} {turkish}"]


def price(dice: random.Random) -> list[str]:
    """Return what some things cost."""
    things = join(count(dice), dice.choice(rows(OBJECTS)))
    money = join(count(dice), dice.choice(rows(MEASURES)[:4]))
    return join(things, ["cost", "coûtent", "kosten", "cuestan", ""], money, ["", "", "", "", "tutuyor"])


def cardinal(dice: random.Random) -> list[str]:
    return number(dice.choice((dice.randrange(21, 100), dice.randrange(100, 1000), dice.randrange(1000, 10_000))))


def amount(dice: random.Random) -> list[str]:
    return join(count(dice), dice.choice(rows(OBJECTS) + rows(MEASURES)))


def date(dice: random.Random) -> list[str]:
    day = dice.randrange(2, 29)
    english, french, german, spanish, turkish = dice.choice(rows(MONTHS))
    words = number(day)
    ordinals = [num2words(day, lang=language, to="ordinal") for language in ("en", "de")]
    return [
        f"the {ordinals[0]} of {english}",
        f"le {words[1]} {french}",
        f"der {ordinals[1]} {german}",
        f"el {words[3]} de {spanish}",
        f"{words[4]} {turkish}",
    ]


def hour(dice: random.Random) -> list[str]:
    """Return what time it is, some minutes past the hour."""
    minutes = number(dice.choice((5, 10, 20)))
    english, french, german, spanish, turkish = dice.choice(rows(HOURS))
    return [
        f"it is {minutes[0]} past {english}",
        f"il est {french} heures {minutes[1]}",
        f"es ist {minutes[2]} nach {german}",
        f"son {spanish} y {minutes[3]}",
        f"saat {turkish} {minutes[4]} geçiyor",
    ]


# Each kind and its share of the probe, in percent.
KINDS = {cardinal: 25, amount: 15, date: 8, hour: 2, price: 8, deed: 22, stay: 20}


def probe(source: str, target: str, training: Collection[str], sentences: int = SENTENCES) -> list[tuple[str, str]]:
    """Return pairs whose source is not in `training`: by kind, half of the phrases and all sentences with capital and full stop."""
    dice = random.Random("plain sentences")
    columns = LANGUAGES.index(source), LANGUAGES.index(target)
    found: dict[str, str] = {}
    so_far = 0
    for kind, share in KINDS.items():  # what a kind lacks, because training has it, the next one makes up
        so_far += share
        tries, wanted = 0, sentences * so_far // 100
        while len(found) < wanted and tries < 50 * sentences:
            tries += 1
            said = [" ".join(text.split()) for text in kind(dice)]
            whole = kind in (price, deed, stay, hour) or dice.random() < 0.5
            pair = [capital(said[column]) + "." if whole else said[column] for column in columns]
            if pair[0] not in training:
                found[pair[0]] = pair[1]
    return list(found.items())


def capital(text: str) -> str:
    """Return a sentence with a capital; only Turkish has a dotted one, and only "iki" (two) begins a sentence with it."""
    return ("İ" if text.startswith("iki ") else text[0].upper()) + text[1:]
