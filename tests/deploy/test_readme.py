"""Every link in the pages of deploy/ leads somewhere."""

import pathlib
import re
import unittest

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
PAGES = [DEPLOY / "README.md", DEPLOY / "iam" / "README.md", DEPLOY / "terraform" / "README.md"]


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Links(unittest.TestCase):
    def test_each_leads_to_a_file_and_a_heading_that_is_there(self) -> None:
        for page in PAGES:
            links = re.findall(r"\]\(([^)]+)\)", page.read_text())
            self.assertTrue(links)
            for link in links:
                with self.subTest(page.parent.name, link=link):
                    path, _, anchor = link.partition("#")
                    target = page.parent / path
                    self.assertTrue(target.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(target))

    def test_every_folder_of_deploy_is_linked(self) -> None:
        links = re.findall(r"\]\((?!\.\.)([\w-]+)", PAGES[0].read_text())
        folders = {each.name for each in DEPLOY.iterdir() if each.is_dir()}
        self.assertLessEqual(folders, set(links))


if __name__ == "__main__":
    unittest.main()
