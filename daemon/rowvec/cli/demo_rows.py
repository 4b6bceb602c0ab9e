"""What the demo puts into its tables, asks of them and rewrites."""
# ruff: noqa: RUF001 - Chinese has commas and brackets of its own

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Row:
    """A course (title, description, teacher) or a post (title, body, author)."""

    title: str
    text: str
    person: str


@dataclass(frozen=True, slots=True)
class DemoTable:
    """A table that the demo makes; its name is the content type as well. Keys count from 1."""

    name: str
    text_column: str
    priority: int
    create: str
    insert: str
    update: str
    drop: str
    rows: tuple[Row, ...]

    @property
    def early(self) -> range:
        """Keys of the rows that are there before the watch: the backfill brings them, at bulk priority."""
        return range(1, len(self.rows) * 2 // 3 + 1)

    @property
    def late(self) -> range:
        """Keys of the rows that are written under the watch, at the table's own priority."""
        return range(len(self.early) + 1, len(self.rows) + 1)

    def columns(self, keys: range) -> tuple[list[int], list[str], list[str], list[str]]:
        """Return rows as the arguments of `insert`: keys, titles, texts, persons."""
        rows = [self.rows[key - 1] for key in keys]
        return list(keys), [row.title for row in rows], [row.text for row in rows], [row.person for row in rows]

    def key_of(self, title: str) -> int:
        """Return a row's key by its title."""
        return next(key for key, row in enumerate(self.rows, 1) if row.title == title)


@dataclass(frozen=True, slots=True)
class Question:
    """A search, and the title of the row that must come first."""

    text: str
    answer: str


COURSE: Final = DemoTable(
    name="course",
    text_column="description",
    priority=2,
    create="""
        DO $$ BEGIN
            CREATE TABLE course (
                id integer PRIMARY KEY, title text NOT NULL, description text NOT NULL, teacher text NOT NULL
            );
            COMMENT ON TABLE course IS 'Made by rowvec demo.';
        END $$""",
    insert="INSERT INTO course SELECT * FROM unnest($1::integer[], $2::text[], $3::text[], $4::text[])",
    update="UPDATE course SET title = $2, description = $3, teacher = $4 WHERE id = $1",
    drop="DROP TABLE IF EXISTS course",
    rows=(
        Row(
            "Sourdough from scratch",
            "Raise a starter, read the dough instead of the clock, and bake a loaf with an open crumb at home.",
            "Hanna Brandt",
        ),
        Row(
            "家常川菜入门",
            "从郫县豆瓣、花椒和火候讲起，十二节课学会麻婆豆腐、回锅肉和鱼香茄子。",
            "罗素琴",
        ),
        Row(
            "Python for people who count things",
            "Load a spreadsheet, clean it, group it and draw it. No programming is assumed, only curiosity.",
            "Tomás Oliveira",
        ),
        Row(
            "数据库原理与实践",
            "索引为什么快、事务怎样隔离、日志如何保证不丢数据，每一章都在真实的数据库里动手验证。",
            "沈一鸣",
        ),
        Row(
            "Harmony for the self-taught",
            "Intervals, cadences and voice leading, heard first and written down afterwards.",
            "Ingrid Solheim",
        ),
        Row(
            "古典吉他基础",
            "坐姿、右手拨弦和音阶练习，半年后能弹一首完整的小曲子。",
            "傅望舒",
        ),
        Row(
            "The Roman republic and how it fell",
            "From the expulsion of the kings to Actium: land, debt, armies and the men who would not share power.",
            "Marcus Adeyemi",
        ),
        Row(
            "大唐长安：一座城市的日常",
            "坊市、宵禁、胡商与寺院，从出土文物看唐代都城里的普通人怎样生活。",
            "韩秋白",
        ),
        Row(
            "A kitchen garden on two square metres",
            "Beds, compost and what to sow each month; herbs, salads and beans for people with a yard or less.",
            "Priya Nair",
        ),
        Row(
            "个人理财第一课",
            "记账、预算、保险和指数基金：先弄清楚钱去了哪里，再谈让它增值。",
            "顾明远",
        ),
        Row(
            "Sleep and the body clock",
            "What light, coffee and late screens do to the night, and how shift workers can protect their rest.",
            "Dr. Ruth Calloway",
        ),
        Row(
            "办公室颈肩康复",
            "久坐的人脖子僵硬、肩膀酸痛怎么办？每天十分钟的拉伸和力量练习。",
            "贺康",
        ),
        Row(
            "Reading the night sky",
            "Find the constellations, planets and nebulae with the naked eye, binoculars and a first telescope.",
            "Elif Yıldız",
        ),
        Row(
            "手机摄影：光线与构图",
            "不换设备也能拍好照片：找光、留白、引导线，以及什么时候不按快门。",
            "乔安",
        ),
        Row(
            "Spanish for the road",
            "Order a meal, ask the way, miss a bus politely: two hundred phrases and the grammar behind them.",
            "Lucía Herrero",
        ),
        Row(
            "木工入门：榫卯与手工具",
            "磨刨刃、开榫眼、不用一颗钉子做一张小凳子。",
            "鲁师傅",
        ),
        Row(
            "First steps in Go, the board game",
            "Life and death, ladders and the opening corners, with problems from ten centuries.",
            "Sakamoto Ren",
        ),
        Row(
            "读懂孩子的情绪",
            "发脾气、不肯上学、怕黑：儿童心理学给父母的十次对话。",
            "叶知秋",
        ),
    ),
)

POST: Final = DemoTable(
    name="post",
    text_column="body",
    priority=4,
    create="""
        DO $$ BEGIN
            CREATE TABLE post (
                id integer PRIMARY KEY, title text NOT NULL, body text NOT NULL, author text NOT NULL
            );
            COMMENT ON TABLE post IS 'Made by rowvec demo.';
        END $$""",
    insert="INSERT INTO post SELECT * FROM unnest($1::integer[], $2::text[], $3::text[], $4::text[])",
    update="UPDATE post SET title = $2, body = $3, author = $4 WHERE id = $1",
    drop="DROP TABLE IF EXISTS post",
    rows=(
        Row(
            "Dough stays flat since it got cold",
            "My kitchen is at 17 degrees now and the loaves don't rise any more. Would the oven light be enough heat?",
            "crumbs",
        ),
        Row(
            "番茄叶子发黄怎么办",
            "阳台上的番茄下层叶子一片片变黄，土一直是湿的。是浇水太多，还是缺镁？",
            "小满",
        ),
        Row(
            "Two transactions wait for each other for ever",
            "Both update the same two rows, in opposite order, and Postgres kills one with a deadlock error. "
            "What is the usual cure?",
            "nightly_build",
        ),
        Row(
            "容器镜像怎样才能小一点",
            "打包出来的镜像有两个多G，部署一次要等十分钟。多阶段构建真的有用吗？",
            "阿哲",
        ),
        Row(
            "Why does a minor chord sound sad?",
            "Lower the third by a semitone and the mood darkens at once. Is that physics, or only what we are used to?",
            "oboe_da_caccia",
        ),
        Row(
            "三十五岁才开始学钢琴，晚不晚",
            "小时候没有条件，现在每天下班能练四十分钟。手指会不会已经太硬了？",
            "迟到的莫扎特",
        ),
        Row(
            "Three days in Kyoto without a car",
            "Buses were packed, so we walked: which temples lie close together, and where is it quiet in the morning?",
            "slowtrain",
        ),
        Row(
            "去冰岛看极光几月最合适",
            "想避开满月和雨季，住在城外的小木屋里等极光。九月还是二月好？",
            "北纬六十六",
        ),
        Row(
            "How many months of wages should I put aside?",
            "Before I invest anything I want a cushion for bad times: a lost job, a broken boiler. Three months? Six?",
            "pennywise_not",
        ),
        Row(
            "第一次跑半程马拉松",
            "还有八周比赛，现在最长跑过十二公里。每周加多少距离才不会受伤？",
            "慢慢跑",
        ),
        Row(
            "Can dogs eat chocolate?",
            "Ours stole a whole bar from the table. Is chocolate poisonous for dogs, and should I call the vet?",
            "good_boy",
        ),
        Row(
            "孩子不肯吃蔬菜",
            "三岁，看到绿色的就推开盘子。藏在饺子里也会被挑出来，大家有什么办法？",
            "豆豆妈",
        ),
        Row(
            "What ended the age of bronze?",
            "Within fifty years palaces burn from Greece to Syria and writing is forgotten. "
            "Raiders, drought, or trade that broke down?",
            "linear_b",
        ),
        Row(
            "郑和下西洋为什么突然停了",
            "七次远航之后，船队和海图都不见了。是花费太大，还是朝廷换了主意？",
            "宝船",
        ),
        Row(
            "When to repot an orchid",
            "Roots are growing out of the pot and the bark smells sour. Should I wait until it has stopped flowering?",
            "windowsill",
        ),
        Row(
            "手冲咖啡总是发酸",
            "浅烘的豆子，九十度的水，两分钟滴完，喝起来又酸又薄。该磨细一点吗？",
            "滤杯",
        ),
        Row(
            "Squeaking bicycle brakes after rain",
            "Every wet morning the rim brakes scream at each crossing. New pads, or is it dirt on the rims?",
            "two_wheels",
        ),
        Row(
            "房贷提前还款划算吗",
            "手里有一笔闲钱，贷款利率四点一。提前还掉一部分房贷，还是留着做投资？",
            "月供族",
        ),
        Row(
            "Is a used telescope worth the risk?",
            "A 150 mm reflector for a third of the price. How do I see whether the mirror is still good?",
            "dobson",
        ),
        Row(
            "室友半夜打游戏太吵",
            "合租的室友每天打到两点，又喊又拍桌子。怎么开口才不伤和气？",
            "耳塞",
        ),
        Row(
            "Nervous before every presentation",
            "My voice shakes in front of ten colleagues, although I know the subject. Does practice alone cure that?",
            "quiet_one",
        ),
        Row(
            "新手养猫要准备什么",
            "下周接一只两个月大的小猫回家，猫砂、疫苗和驱虫应该按什么顺序来？",
            "橘座",
        ),
    ),
)

TABLES: Final = (COURSE, POST)

MARK: Final = "Made by rowvec demo."
"""The comment on each table, by which the demo knows its own: it drops no other."""

QUESTIONS: Final = (
    Question("My toddler refuses to eat vegetables", "孩子不肯吃蔬菜"),
    Question("狗可以吃巧克力吗？", "Can dogs eat chocolate?"),
    Question("How do I take better pictures with my phone?", "手机摄影：光线与构图"),
    Question("Postgres 里两条 UPDATE 互相等待怎么办？", "Two transactions wait for each other for ever"),
    Question("What do I need before I bring a kitten home?", "新手养猫要准备什么"),
)

BEFORE: Final = "When to repot an orchid"
"""The post that is rewritten to another topic."""

AFTER: Final = Row(
    "Shooting stars in the second week of August",
    "The Perseids peak on the 12th and there is no moon: lie down in a dark place after midnight and look up.",
    "windowsill",
)

NEW_ANSWER: Final = Question("When can I see shooting stars?", AFTER.title)

AFTERTHOUGHTS: Final = (
    "Thank you all, that helped.",
    "谢谢大家，问题解决了。",
    "I will try it this weekend and report back.",
    "补充：周末试过了，效果不错。",
)
"""What the measured updates append, in turns, to one post after another."""

LIST_TITLES: Final = """
SELECT 'course' AS content_type, id::text AS content_id, title FROM course
UNION ALL SELECT 'post', id::text, title FROM post
"""
