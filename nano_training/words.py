# ruff: noqa: E501
"""Ordinary product text for the nano tokenizer, beyond what the rendered shops say.

Written for this project. Without it, anything but a garment would fall apart into single bytes.
"""

SAMPLE = """
Wireless noise cancelling headphones with bluetooth 5.3, 30 hour battery life and fast charging over USB-C.
Gaming laptop 15.6 inch full HD display, 16 GB RAM, 512 GB SSD, dedicated graphics card, backlit keyboard.
Smartphone 128 GB unlocked dual SIM, 6.1 inch OLED screen, 48 MP camera, water resistant, black, blue or silver.
Portable external hard drive 2 TB USB 3.0, compatible with Windows and Mac. Memory card, adapter and cable included.
Smart TV 55 inch 4K ultra HD LED television with HDMI, Wi-Fi, remote control and wall mount. Energy class F.
Digital camera with 24 megapixel sensor, optical zoom lens, tripod, battery charger and carrying case.
Mechanical keyboard, optical mouse, mouse pad, monitor stand, webcam, speaker, microphone and printer ink cartridge.
Stainless steel electric kettle 1.7 litre, 2200 W, automatic shut-off. Coffee machine, toaster, blender and microwave oven.
Robot vacuum cleaner with mapping, washing machine 8 kg 1400 rpm, dishwasher, refrigerator and freezer in white or inox.
Cordless drill 18 V with two lithium-ion batteries, screwdriver bits, hammer, saw, wrench set and tool box.
Solid oak dining table with six chairs, bookcase, bedside table, desk lamp, three-seat sofa in grey fabric, memory foam mattress.
Cotton bed linen set 150 x 210 cm, duvet cover and pillow case, bath towel, curtain, rug, cushion and blanket.
Ceramic plates, glass bowls, wine glasses, kitchen knife, cutting board, frying pan with non-stick coating, saucepan with lid.
Organic whole milk 1 l, free range eggs 12 pack, unsalted butter 500 g, cheddar cheese, natural yoghurt and sour cream.
Sliced wholemeal bread, basmati rice 1 kg, spaghetti, tomato sauce, extra virgin olive oil, sea salt and black pepper.
Dark chocolate 70% cocoa, salted peanuts, potato crisps, orange juice, sparkling water, ground coffee and green tea bags.
Fresh apples, bananas, carrots, onions, broccoli, salmon fillet, chicken breast, minced beef, frozen peas and ice cream.
Gluten free, vegan, lactose free, sugar free, low fat, high protein, no artificial colours or preservatives. Best before date.
Shampoo for dry hair 250 ml, conditioner, shower gel, moisturising face cream with SPF 30, lipstick, mascara and nail polish.
Toothpaste with fluoride, toothbrush, deodorant, razor blades, baby wipes, diapers size 4, laundry detergent, dish soap.
Running shoes for men with cushioned sole, leather ankle boots, sandals, sneakers, slippers, size 38, 42, EU, UK, US.
Leather handbag with shoulder strap and zipped compartment, backpack, wallet, suitcase, umbrella, sunglasses and watch.
Silver necklace with pendant, gold ring, pearl earrings, bracelet, scarf, gloves, wool hat, cap, tie, socks and underwear.
Women's jacket with hood, men's slim fit jeans, knitted sweater, cardigan, suit, vest, leggings, pyjamas, swimsuit and bikini.
Merino wool, linen, silk, polyester, nylon, elastane, denim, velvet, corduroy, fleece, down, lace, mesh, satin and chiffon.
Mountain bike 27.5 inch aluminium frame with disc brakes, bicycle helmet, yoga mat, dumbbell, football, tennis racket, tent.
Children's wooden puzzle, building blocks, doll, board game, teddy bear, remote controlled car, ages 3 years and up.
Hardcover novel, cookbook, notebook A5 lined, ballpoint pens, printer paper 500 sheets, stapler, envelopes and calendar.
Dog food with chicken and rice 10 kg, cat litter, bird seed, aquarium filter, garden hose, lawn mower, flower pots and seeds.
Car tyre 205/55 R16, engine oil 5W-30, wiper blades, phone holder, roof box, LED bulb E27 9 W warm white, extension cord.
Brand, model, manufacturer, part number, weight, width, height, depth, diameter, capacity, voltage, power, material, colour.
Condition: new. Warranty: 2 years. Package contents: one unit with manual. In stock, sold out, discount, sale, best seller.
Gender: women; men; unisex; kids; boys; girls. Season: spring; summer; autumn; fall; winter. Occasion: casual; formal; sports.
article type: shirts; usage: casual; base colour: navy blue; sleeve length: long sleeves; fit: slim; material: cotton; style: modern.
product type: monitor; screen size: 27 inch; resolution: 2560 x 1440; refresh rate: 144 Hz; connectivity: wireless; storage: 256 GB.
flavour: vanilla; packaging: bottle; quantity: 6 x 330 ml; origin: Sweden; storage: frozen; diet: vegetarian; brand: unknown.
Which attributes tell these two products apart? What does the picture show? Find the same item from another photo.
Describe the product. List the attributes in JSON. The image shows a person wearing a shirt and holding a bag.
Klänning i bomull med långa ärmar och knälång kjol. Tröja, skjorta, blus, byxor, kappa, jacka, strumpor, skor och väska.
Färg: röd, blå, grön, gul, vit, svart, grå, rosa, lila, brun, beige, mörkblå, ljusblå. Mönster: randig, rutig, prickig, blommig.
Färska ägg från frigående höns, mellanmjölk, smör, ost, bröd, kött, fisk, grönsaker, frukt, läsk, öl, choklad och godis.
Trådlösa hörlurar, bärbar dator, mobiltelefon, skärm, tangentbord, kylskåp, diskmaskin, tvättmaskin och dammsugare.
Storlek: liten, mellan, stor. Material: ull, linne, siden, läder. Tillverkad i Sverige. Tvättas i 40 grader. Fri frakt.
Kleid, Hemd, Hose, Jacke, Größe, Farbe, schwarz, weiß, blau, für Damen und Herren. Robe à fleurs, chemise, pantalon, été.
0 1 2 3 4 5 6 7 8 9 10 12 15 16 18 20 24 25 30 32 36 40 45 48 50 60 64 75 80 90 99 100 120 128 150 180 200 240 250 256 300
400 500 512 600 750 800 1000 1080 1200 1500 2000 2019 2020 2021 2022 2023 2024 2025 $ 9.99 EUR 19.95 SEK 249 GBP 1.49 % & + / x
"""
