"""Names by which shops and their tools call the columns of interactions and of order exports, the surest first.

The languages are those of the catalog's columns (`catalog/column_names.py`). Words are compared as `name_forms.plain`
writes them.
"""

from __future__ import annotations

from ..catalog.column_names import COMMON, words_of
from ..catalog.name_forms import plain

EMAILS = (
    "email, email address, customer email, billing email, user email, buyer email, contact email, email billing, e "
    "mail, mail, kunden email, kunde email, e mail adresse, emailadresse, adresse email, correo, correo "
    "electronico, courriel, customer mail, order email"
)
CUSTOMERS = (
    "customer id, id customer, buyer username, customer, customer number, customer no, customer key, customer "
    "code, user id, user, userid, client id, client, client number, buyer id, buyer, buyer user id, shopper id, "
    "shopper, visitor id, visitor, member id, member, account id, account, person id, profile id, reviewer id, "
    "reviewer, customer user, cust id, uid, contact id, session id, session, kundennummer, kundennr, kunden nr, "
    "kunden id, kunde, kunden, kundin, besteller, kaufer, nutzer, nutzer id, benutzer, numero client, client "
    "numero, id client, code client, acheteur, utilisateur, id cliente, cliente, cliente id, numero de cliente, "
    "codigo cliente, comprador, usuario, codigo do cliente, utente, codice cliente, acquirente, klantnummer, "
    "klant, klant id, gebruiker, koper, kundnummer, kund, kund id, kundenummer, kunde id, kopare, kober, asiakas, "
    "asiakasnumero, asiakas id, klient, id klienta, numer klienta, nabywca, zakaznik, id zakaznika, cislo "
    "zakaznika, vevo, ugyfel, vasarlo, vevokod, client cod, cod client, cumparator, musteri, musteri id, musteri "
    "no, musteri kodu, покупатель, клиент, код клиента, id клиента, покупець, клієнт, πελατης, κωδικος πελατη, "
    "العميل, رقم العميل, معرف العميل, לקוח, מספר לקוח, 顧客id, 顧客番号, 会員id, 会員番号, ユーザーid, 客户, "
    "客户id, 客户编号, 用户id, 用户, 会员id, 고객, 고객id, 고객번호, 회원번호, 회원id, 사용자id"
)
TIMES = (
    "sale date, date add, erstelldatum, erstellt am, angelegt am, time, timestamp, event time, event timestamp, "
    "datetime, date time, ts, created at, order date, purchase date, order created at, order time, ordered at, "
    "purchased at, order placed at, date created, created, created on, date, event date, transaction date, invoice "
    "date, paid at, paid date, processed at, completed date, date paid, order date time, unix timestamp, time "
    "stamp, occurred at, review date, unix review time, day, t dat, zeit, zeitpunkt, zeitstempel, bestelldatum, "
    "bestellzeit, auftragsdatum, kaufdatum, rechnungsdatum, datum, bestellt am, datum uhrzeit, date commande, date "
    "de commande, date achat, heure, date de creation, fecha, fecha pedido, fecha de pedido, fecha compra, fecha "
    "de compra, fecha y hora, data, data pedido, data do pedido, data compra, data da compra, data ordine, data "
    "acquisto, data e ora, orario, besteldatum, orderdatum, aankoopdatum, tijd, tijdstip, orderdatum, kopdatum, "
    "tid, tidpunkt, tidsstampel, ordredato, bestillingsdato, kjopsdato, kobsdato, dato, tidspunkt, paivamaara, "
    "tilauspaiva, aika, ostopaiva, data zamowienia, data zakupu, czas, datum objednavky, datum nakupu, cas, datum "
    "a cas, rendeles datuma, vasarlas datuma, datum ido, idopont, data comenzii, data comanda, siparis tarihi, "
    "tarih, zaman, satin alma tarihi, дата, дата заказа, дата покупки, время, дата и время, дата замовлення, час, "
    "ημερομηνια, ημερομηνια παραγγελιας, التاريخ, تاريخ الطلب, الوقت, תאריך, תאריך הזמנה, זמן, 注文日, 注文日時, "
    "購入日, 購入日時, 日時, 日付, 下单时间, 订单时间, 订单日期, 购买时间, 时间, 日期, 주문일, 주문일시, 구매일, "
    "구매일시, 날짜, 시간"
)
ITEMS = (
    "stock code, item, sku, lineitem sku, item sku, product sku, variant sku, line item sku, item id, itemid, "
    "product id, product, article id, article, listing id, asin, parent asin, variant id, variation id, item "
    "product id, item variation id, product code, product number, item number, item code, article number, content "
    "id, content ids, movie id, video id, artikelnummer, artikel, artikel nr, artikelnr, produkt, produktnummer, "
    "produkt id, reference produit, produit, producto, id producto, produto, id produto, prodotto, id prodotto, "
    "productnummer, varenummer, vare, tuote, produkty, id produktu, towar, termek, produs, urun, товар, продукт, "
    "προιον, المنتج, מוצר, 商品, 商品id, 产品, 产品id, 상품, 상품id, lineitem barcode, barcode, gtin, ean"
)
NO_ITEMS = words_of(
    "id reference ref referencia referenz symbol indeks cod code codigo codice kod код ид order_number ordernumber "
    "bestellnummer external_id handle_id barcodes parent model_name default_code"
)
"""Names of a catalog's ids that number something else in a table of orders."""
EVENTS = (
    "event, event type, event name, action, activity, interaction, interaction type, behavior, behaviour, type, "
    "transaction type, ereignis, aktion, vorgang, evenement, action type, evento, accion, acao, azione, "
    "gebeurtenis, actie, handelse, hendelse, haendelse, tapahtuma, zdarzenie, udalost, akce, esemeny, eveniment, "
    "olay, событие, действие, подія, γεγονος, الحدث, אירוע, イベント, 行動, 事件, 行为, 이벤트, 행동"
)
QUANTITIES = (
    "product quantity, quantity, lineitem quantity, item quantity, quantity purchased, qty, amount ordered, qty "
    "ordered, units, pieces, menge, anzahl, stuckzahl, stuck, bestellmenge, quantite, qte, cantidad, cant, "
    "unidades, quantidade, qtd, quantita, qta, hoeveelheid, aantal, antal, kvantitet, antall, maengde, maara, kpl, "
    "ilosc, liczba, mnozstvi, pocet, pocet kusu, mennyiseg, darab, cantitate, adet, miktar, количество, кол во, "
    "кількість, ποσοτητα, الكمية, כמות, 数量, 個数, 수량, 개수"
)
ORDERS = (
    "order id, id order, order number, order, orderid, order no, order name, increment id, amazon order id, "
    "invoice no, invoice, transaction id, invoice number, bestellnummer, auftragsnummer, bestellnr, bestell nr, "
    "bestellung, numero de commande, commande, numero commande, pedido, numero de pedido, id pedido, numero "
    "pedido, ordine, numero ordine, id ordine, bestelnummer, bestelling, ordernummer, ordrenummer, ordre, "
    "tilausnumero, tilaus, numer zamowienia, zamowienie, cislo objednavky, objednavka, rendelesszam, rendeles, "
    "numar comanda, comanda, siparis no, siparis numarasi, номер заказа, заказ, номер замовлення, αριθμος "
    "παραγγελιας, رقم الطلب, מספר הזמנה, 注文番号, 订单号, 订单编号, 주문번호"
)
STATUSES = (
    "order status, financial status, status, state, payment status, bestellstatus, auftragsstatus, zahlungsstatus, "
    "statut, statut commande, etat, estado, estado del pedido, situacao, stato, stato ordine, bestelstatus, "
    "orderstatus, tila, status zamowienia, stav, stav objednavky, allapot, stare, durum, siparis durumu, статус, "
    "статус заказа, κατασταση, حالة الطلب, סטטוס, 注文状況, ステータス, 订单状态, 状态, 주문상태, 상태"
)
CANCELLED = "cancelled at, canceled at, cancelled on, date cancelled, storniert am, refunded at, returned at"
REFUNDED = (
    "refunded qty, item refunded qty, qty refunded, quantity refunded, returned quantity, refunded quantity, "
    "quantity returned, refunds"
)


CATALOGS = (*COMMON["id"], *COMMON["product_id"], *COMMON["group_id"])
"""What catalogs call the columns that an order's item can stand for."""


def _names(text: str) -> tuple[str, ...]:
    """Return the names of `text`, those of several words also written as one: visitorid."""
    names = [plain(name) for name in text.split(",")]
    return tuple(dict.fromkeys(form for name in names for form in (name, name.replace("_", ""))))


KNOWN = {
    "customer": _names(f"{CUSTOMERS}, {EMAILS}"),
    "item": (*_names(ITEMS), *(name for name in CATALOGS if name not in NO_ITEMS)),
    "time": _names(TIMES),
    "event": _names(EVENTS),
    "quantity": _names(QUANTITIES),
    "order": _names(ORDERS),
    "status": _names(STATUSES),
    "cancelled": _names(CANCELLED),
    "refunded": _names(REFUNDED),
}  # fmt: skip
"""By role, as `plain` writes them."""
EMAIL_FIRST = _names(f"{EMAILS}, {CUSTOMERS}")
"""Customers of order exports: their numbers are 0 for guests, while every order has an address."""
