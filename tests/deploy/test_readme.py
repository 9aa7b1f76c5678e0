"""Every link in the pages of deploy/ leads somewhere, and their commands name what is there."""

import json
import pathlib
import re
import shlex
import unittest

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
PAGES = sorted(DEPLOY.rglob("README.md"))
# Pages whose tables name every folder that has such a file.
FOLDERS = {"kubernetes": "kustomization.yaml", "terraform": "main.tf"}


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
                with self.subTest(str(page.relative_to(DEPLOY)), link=link):
                    path, _, anchor = link.partition("#")
                    target = page.parent / path
                    self.assertTrue(target.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(target))

    def test_every_folder_of_deploy_is_linked(self) -> None:
        links = re.findall(r"\]\((?!\.\.)([\w-]+)", (DEPLOY / "README.md").read_text())
        folders = {each.name for each in DEPLOY.iterdir() if each.is_dir()}
        self.assertLessEqual(folders, set(links))

    def test_every_folder_of_a_page_is_in_its_table(self) -> None:
        for page, file in FOLDERS.items():
            with self.subTest(page):
                folder = DEPLOY / page
                named = re.findall(r"^\| `([\w/-]+)` \|", (folder / "README.md").read_text(), re.MULTILINE)
                there = {str(one.parent.relative_to(folder)) for one in folder.rglob(file)}
                self.assertEqual(sorted(named), sorted(there))


class DoctorInAPod(unittest.TestCase):
    def test_is_run_as_the_image_and_the_manifests_have_it(self) -> None:
        script = re.search(r"```sh\n( *kubectl .*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)[1]
        command = shlex.split(script.replace("\\\n", " "))
        dockerfile = (DEPLOY / "docker" / "Dockerfile").read_text()
        entry_point, arguments = [
            json.loads(re.search(rf"^{name} (.*)$", dockerfile, re.MULTILINE)[1]) for name in ("ENTRYPOINT", "CMD")
        ]
        overlay = yaml.safe_load((DEPLOY / "kubernetes/overlays/service/kustomization.yaml").read_text())
        deployment = yaml.safe_load((DEPLOY / "kubernetes/base/deployment.yaml").read_text())
        exec_in = ["exec", f"deploy/{deployment['metadata']['name']}", "--"]
        kubectl = ["kubectl", "--namespace", overlay["namespace"], *exec_in]
        self.assertEqual(command, [*kubectl, *entry_point, "doctor", *arguments])


if __name__ == "__main__":
    unittest.main()
