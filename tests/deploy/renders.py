"""What holds for each set of manifests that is rendered, whatever renders it."""

import golden
import manifests


class Renders:
    """Tests of a class that has `rendered` by name, the `folder` of what is kept, and `own`: what the user made beforehand."""

    folder: str
    own: dict[str, set[str]]
    rendered: dict[str, list[dict]]

    def test_render_what_is_kept(self) -> None:
        for name, rendered in self.rendered.items():
            with self.subTest(name):
                golden.compare(self, f"{self.folder}/{name}", rendered)
        kept = {path.stem for path in (golden.GOLDEN / self.folder).iterdir()}
        self.assertEqual(kept, self.rendered.keys())

    def test_have_no_problem(self) -> None:
        for name, rendered in self.rendered.items():
            with self.subTest(name):
                self.assertEqual(manifests.problems(rendered), [])
                self.assertEqual(manifests.absent(rendered), self.own.get(name, set()))
