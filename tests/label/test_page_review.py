"""Notes, the grid of images, side by side, and names, in a real browser."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.label.app import links_of
from preceptor.label.db import connect
from preceptor.label.export import export_marks
from tests.label import pages
from tests.label.pages import Served, opened, press, saved, served
from tests.label.serving import Client, box, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE = (200, 160)
LEFT, RIGHT = box(20, 30, 60, 50, SIZE), box(120, 30, 60, 50, SIZE)


def images(folder: Path, count: int) -> Path:
    return pages.write_images(folder / "images", {f"image-{n}.png": SIZE for n in range(count)})


def number(server: Served, name: str) -> int:
    ((found,),) = server.ask("SELECT id FROM images WHERE path = ?", name)
    return int(found)


def shows(page: Page, *names: str) -> None:
    """Wait until the grid shows images of these names."""
    page.wait_for_function(
        "(names) => [...document.querySelectorAll('.cell strong')]"
        ".map((one) => one.textContent).join() === names",
        arg=",".join(names),
    )


def mark(client: Client, image: int, mask: np.ndarray, **more: object) -> None:
    client.tab = f"tab-{image}-{id(client)}"
    assert client.stroke(image, mask).status == 200
    assert client.answer(image, **more).status == 200


def test_the_grid_shows_filters_and_leads_to_an_image(browser: Browser, tmp_path: Path) -> None:
    with served(images(tmp_path, 6), tmp_path) as server:
        ada = Client(server.address).enter(server.token, "Ada")
        one, two, three = (number(server, f"image-{n}.png") for n in (1, 2, 3))
        mark(ada, one, LEFT, certainty=1)
        mark(ada, two, RIGHT)
        assert ada.answer(two, certainty=3).status == 200
        ada.answer(three, "nothing")
        with opened(browser, server, "Ada", "image-0.png") as page:
            press(page, "t")
            page.keyboard.type("artefact")
            press(page, "Enter", "g")
            shows(page, *[f"image-{n}.png" for n in range(6)])
            shown = {
                "open": ["image-0.png", "image-4.png", "image-5.png"],
                "one": ["image-1.png", "image-2.png", "image-3.png"],
                "unsure": ["image-1.png"],
                "noted": ["image-0.png"],
                "changed": ["image-2.png"],
                "low": [],
            }
            for kind, expected in shown.items():
                page.locator(f"[data-filter={kind}]").click()
                shows(page, *expected)
            page.locator("[data-filter='']").click()
            shows(page, *[f"image-{n}.png" for n in range(6)])
            cell = page.locator(".cell", has_text="image-1.png")
            assert cell.locator(".chip").all_inner_texts() == ["Marked, unsure"]
            tinted = """(canvas) => {
              const { width, height } = canvas;
              const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
              const at = (x, y) =>
                pixels[(Math.round(y * height) * width + Math.round(x * width)) * 4 + 3];
              return [at(0.25, 0.35) > 0, at(0.75, 0.35) > 0];
            }"""
            page.wait_for_function("() => document.querySelectorAll('canvas')[3].width === 400")
            assert cell.locator("canvas").evaluate(tinted) == [True, False]
            page.locator("input[type=search]").fill("AGE-4")
            shows(page, "image-4.png")
            page.locator(".cell").click()
            page.wait_for_function(
                "() => document.getElementById('name').textContent === 'image-4.png'"
            )
            pages.show(page, server, "image-0.png")
            assert page.locator("#note").input_value() == "artefact"


def test_the_lead_settles_what_two_people_disagree_about(browser: Browser, tmp_path: Path) -> None:
    with served(images(tmp_path, 3), tmp_path, overlap=2, overlap_share=1.0) as server:
        clients = [Client(server.address).enter(server.token, name) for name in ("Bo", "Cy")]
        first, second = (number(server, f"image-{n}.png") for n in (0, 1))
        for client, mask in zip(clients, (LEFT, RIGHT), strict=True):
            mark(client, first, mask, seconds=90)
            mark(client, second, LEFT)
        with opened(browser, server, "Ada", "image-2.png") as page:
            press(page, "g")
            page.locator("[data-filter=low]").click()
            shows(page, "image-0.png")
            page.locator(".cell").click()
            page.locator("figure").first.wait_for()
            assert page.locator("figcaption strong").all_inner_texts() == ["Bo", "Cy"]
            press(page, "2")
            page.locator("[data-settle='1'][aria-pressed=true]").wait_for()
            assert page.locator("[data-settle='0']").get_attribute("aria-pressed") == "false"
            press(page, "Escape")
            shows(page)
        export_marks(connect(server.database, readonly=True), server.database, tmp_path / "out")
        table = pd.read_csv(tmp_path / "out" / "manifest.csv").set_index("path")
        row = next(row for path, row in table.iterrows() if str(path).endswith("image-0.png"))
        made = np.asarray(Image.open(tmp_path / "out" / row["saliency"])) > 0
        np.testing.assert_array_equal(made, RIGHT)
        assert row["annotators"] == 1
        for name, mask in (("Bo", LEFT), ("Cy", RIGHT)):  # what each has marked is kept
            own = np.asarray(Image.open(tmp_path / "out" / "annotators" / name / "image-0.png"))
            np.testing.assert_array_equal(own > 0, mask)


def test_people_are_renamed(browser: Browser, tmp_path: Path) -> None:
    with served(images(tmp_path, 3), tmp_path) as server:
        wrong, _ = (Client(server.address).enter(server.token, n) for n in ("Graec", "Bo"))
        mark(wrong, number(server, "image-0.png"), LEFT)
        with opened(browser, server, "Ada", "image-2.png") as page:
            page.locator("#to-lead").click()

            def rename(old: str, new: str) -> None:
                page.get_by_label("Person").select_option(old)
                page.get_by_label("New name").fill(new)
                page.get_by_role("button", name="Rename", exact=True).click()

            rename("Graec", "Grace")
            page.locator("th", has_text="Grace").wait_for()
            rename("Bo", "grace")
            page.get_by_text("Grace is the name of another person.").wait_for()
            assert server.mask("image-0.png", "Grace").any()


def test_what_another_name_left_unsaved_is_told(browser: Browser, tmp_path: Path) -> None:
    with served(images(tmp_path, 3), tmp_path) as server:
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        context.add_cookies([server.cookie("Ada")])  # type: ignore[list-item]
        page = pages.another_tab(context, server, "Ada", "image-0.png", "Failed to load")
        page.route("**/strokes", lambda route: route.abort())
        for x in (500, 600):
            page.mouse.click(x, 400)
        page.get_by_text("2 changes not saved").wait_for()
        page.close(run_before_unload=False)
        context.add_cookies([server.cookie("Adda")])  # type: ignore[list-item]
        # The server may not have heard yet that Ada's tab is closed.
        page = pages.another_tab(context, server, "Adda", "image-1.png", "status of 409")
        page.get_by_text("2 changes of Ada wait here.").wait_for()
        assert server.ask("SELECT count(*) FROM strokes") == [(0,)]
        # A message of Adda that arrives after Ada has begun would be refused.
        page.route("**/open", lambda route: (time.sleep(0.5), route.continue_()))
        page.get_by_role("button", name="Go on as Ada", exact=True).click()
        page.wait_for_function("() => document.getElementById('who').textContent === 'Ada'")
        page.locator("#trouble").wait_for(state="hidden")
        saved(page)
        assert server.mask("image-0.png", "Ada").any()
        press(page, "?")
        assert "sees everybody's marks" in page.locator("#sees").inner_text()
        assert page.said == []  # type: ignore[attr-defined]
        context.close()


def test_a_linked_person_sees_and_changes_their_own_alone(tmp_path: Path) -> None:
    with running(images(tmp_path, 2), access="links") as server:
        tokens = links_of(server.labeling, ["ann", "bo"])
        ann, bo = (Client(server.address).enter(tokens[name]) for name in ("ann", "bo"))
        mark(ann, 1, LEFT)
        assert ann.post("/api/images/1/note", {"tab": "x", "text": " ask again "}).status == 200
        assert ann.image(1)["note"] == "ask again"
        assert bo.image(1)["note"] == ""
        assert [one["people"] for one in bo.get("/api/grid").json["images"]] == [[], []]
        assert bo.get("/api/grid?filter=noted").json["total"] == 0
        (own,) = ann.get("/api/grid?filter=noted").json["images"][0]["people"]
        assert (own["name"], own["note"], len(own["marks"])) == ("ann", "ask again", 1)
        for path, body in (
            ("/api/images/1/settle", {"tab": "x", "person": None}),
            ("/api/people", {"tab": "x", "person": 1, "name": "eve"}),
        ):
            assert bo.post(path, body).status == 403
        assert bo.get("/api/images/1/small?side=64").status == 200
