"""The Terraform modules: what they name exists, and the policies that Terraform makes are those of deploy/iam.

What needs `terraform` is skipped where there is none. It works offline: the module `policies` has no provider.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import hcl2
import policies
from moto.iam.policy_validation import IAMPolicyDocumentValidator, IAMTrustPolicyDocumentValidator

MODULES = policies.ROOT / "deploy" / "terraform"
NAMES = ("policies", "role", "trail")
TERRAFORM = shutil.which("terraform")
WHY_NOT = "no terraform here: the modules are parsed, not evaluated"
if not TERRAFORM:
    print(f"test_terraform.py: skips some: {WHY_NOT}")
needs_terraform = unittest.skipUnless(TERRAFORM, WHY_NOT)


def terraform(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    """Without the user's settings, and without asking anybody."""
    with tempfile.NamedTemporaryFile(suffix=".tfrc") as settings:
        variables = os.environ | {"TF_CLI_CONFIG_FILE": settings.name, "CHECKPOINT_DISABLE": "1"}
        command = [TERRAFORM, f"-chdir={folder}", *arguments]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)


LABELS = {"variable": 1, "output": 1, "module": 1, "resource": 2, "data": 2}


def unquoted(value):
    """The parser keeps the quotes of labels and texts."""
    if isinstance(value, dict):
        return {unquoted(key): unquoted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [unquoted(each) for each in value]
    return value.removeprefix('"').removesuffix('"') if isinstance(value, str) else value


def blocks(text: str, kind: str) -> dict[str, dict]:
    """The blocks of a kind by their labels, joined by a dot."""
    found = {}
    for block in unquoted(hcl2.loads(text)).get(kind, []):
        labels = []
        for _ in range(LABELS[kind]):
            (label,) = [key for key in block if not key.startswith("__")]
            labels.append(label)
            block = block[label]
        found[".".join(labels)] = block
    return found


def module(name: str) -> str:
    """All of a module's files."""
    return "\n".join(file.read_text() for file in sorted((MODULES / name).glob("*.tf")))


def without_comments_and_texts(text: str) -> str:
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    return re.sub(r'^\s*(description|error_message)\s*=.*$', "", text, flags=re.MULTILINE)


class Modules(unittest.TestCase):
    def test_every_variable_is_typed_told_of_and_used(self) -> None:
        for name in NAMES:
            text = module(name)
            variables = blocks(text, "variable")
            self.assertTrue(variables)
            used = re.findall(r"\bvar\.(\w+)", re.sub(r"validation \{.*?\n  \}", "", text, flags=re.DOTALL))
            self.assertEqual(set(used), set(variables), name)
            for variable, block in variables.items():
                with self.subTest(name, variable=variable):
                    self.assertRegex(block["description"], r"^[A-Z].*\.$")
                    self.assertIn("type", block)
                    text_of_type = str(block["type"])
                    if "string" in text_of_type and variable not in ("documents", "tags", "permissions_boundary"):
                        self.assertTrue(block.get("validation"), "nothing checks it")

    def test_outputs_are_told_of_and_versions_are_bounded(self) -> None:
        for name in NAMES:
            outputs = blocks(module(name), "output")
            self.assertTrue(outputs)
            for output, block in outputs.items():
                self.assertRegex(block["description"], r"^[A-Z].*\.$", f"{name}.{output}")
            (settings,) = unquoted(hcl2.loads((MODULES / name / "versions.tf").read_text()))["terraform"]
            self.assertEqual(settings["required_version"], ">= 1.3")
            # What they read of the provider is not promised beyond.
            bounds = [provider["aws"]["version"] for provider in settings.get("required_providers", [])]
            self.assertEqual(bounds, [] if name == "policies" else [">= 5.0, < 7.0"], name)

    def test_every_resource_and_value_that_is_named_exists(self) -> None:
        for name in NAMES:
            text = module(name)
            made = set(blocks(text, "resource")) | {f"data.{label}" for label in blocks(text, "data")}
            code = without_comments_and_texts(text)
            named = set(re.findall(r"\b((?:data\.)?aws_\w+\.\w+)", code))
            self.assertLessEqual(named, made, name)
            locals_of = {key for block in unquoted(hcl2.loads(text)).get("locals", []) for key in block}
            self.assertLessEqual(set(re.findall(r"\blocal\.(\w+)", code)), locals_of, name)
            for file in re.findall(r'\$\{path\.module\}/([\w./]+\.json)"', text):
                self.assertTrue((MODULES / name / file).is_file(), file)

    def test_the_readme_calls_the_modules_as_they_are(self) -> None:
        examples = re.findall(r"```hcl\n(.*?)```", (MODULES / "README.md").read_text(), re.DOTALL)
        self.assertEqual(len(examples), 3)
        for example in examples:
            modules = blocks(example, "module")
            self.assertIn("role", modules)
            for call, block in modules.items():
                name = block["source"].removeprefix("./deploy/terraform/")
                variables = blocks(module(name), "variable")
                given = {key for key in block if not key.startswith("__")} - {"source", "providers"}
                self.assertLessEqual(given, set(variables), call)
                needed = {key for key, variable in variables.items() if "default" not in variable}
                self.assertLessEqual(needed, given, call)
            for call, output in re.findall(r"\bmodule\.(\w+)\.(\w+)", example):
                self.assertIn(output, blocks(module(call), "output"))

    def test_the_trails_documents_have_the_grammar_of_iam(self) -> None:
        values = {
            "partition": "aws",
            "region": policies.REGION,
            "bucket": "trail",
            "owner": policies.ACCOUNT,
            "log_group": policies.VALUES["log_group_arn"],
            "trail": f"arn:aws:cloudtrail:{policies.REGION}:{policies.ACCOUNT}:trail/cloudtrail-tls",
        }
        folder = MODULES / "trail"
        filled = {file.stem: policies.filled_in(file, **values) for file in folder.glob("*.json")}
        IAMPolicyDocumentValidator(json.dumps(filled["delivery"])).validate()
        IAMTrustPolicyDocumentValidator(json.dumps(filled["delivery_trust"])).validate()
        # AWS supports none for this role; with one, nothing would be delivered.
        self.assertNotIn("Condition", filled["delivery_trust"]["Statement"][0])
        self.assertEqual(set(filled), {"bucket", "delivery", "delivery_trust"})
        for statement in filled["bucket"]["Statement"]:
            # Another account's trail is not to deliver into this bucket.
            self.assertEqual(statement["Condition"]["StringEquals"]["aws:SourceArn"], values["trail"])
            self.assertEqual(statement["Principal"], {"Service": "cloudtrail.amazonaws.com"})
        values_given = re.search(r"values = \[(.*?)\n  \}\]", module("trail"), re.DOTALL)[1]
        given = set(re.findall(r"^    (\w+)\s+=", values_given, re.MULTILINE))
        used = {name for file in folder.glob("*.json") for name in policies.PLACEHOLDER.findall(file.read_text())}
        self.assertLessEqual(used, given)

    @needs_terraform
    def test_terraform_would_write_the_files_so(self) -> None:
        ran = terraform(MODULES, "fmt", "-check", "-recursive", "-diff", ".")
        self.assertEqual((ran.returncode, ran.stdout), (0, ""), ran.stderr)


KEY = policies.VALUES["kms_key_arn"]
GROUP = policies.VALUES["log_group_arn"]
WHO = {"irsa": {"oidc_provider_arn": policies.VALUES["oidc_provider_arn"], "namespace": "monitoring"}}
ATHENA = {
    "region": policies.REGION,
    "account": policies.ACCOUNT,
    "database": "logs",
    "table": "cloudtrail_logs",
    "trail_bucket": "trail",
    "results_bucket": "results",
    "results_prefix": "athena/",
}
ALL = {
    "logs_insights": {"log_group_arns": [GROUP], "kms_key_arns": [KEY]},
    "lake": {"event_data_store_arns": [policies.VALUES["event_data_store_arn"]], "kms_key_arns": [KEY]},
    "athena": {**ATHENA, "trail_kms_key_arns": [KEY], "results_kms_key_arns": [KEY]},
    "event_history": True,
    "assume_role_arns": [policies.VALUES["role_arn"]],
    **WHO,
    "pod_identity": {"cluster_arn": policies.VALUES["cluster_arn"], "namespace": "monitoring"},
    "ec2": True,
    "ecs": {"account": policies.ACCOUNT},
    "cross_account": {
        "exporter_role_arn": policies.VALUES["exporter_role_arn"],
        "external_id": policies.VALUES["external_id"],
    },
}
TRUSTS = ("irsa", "pod_identity", "ec2", "ecs", "cross_account")
HISTORY = {"event_history": True}
# Values that are refused, each with a part of what is told.
REFUSED = [
    ({**WHO, "logs_insights": {"log_group_arns": []}}, "at least one ARN of a log group"),
    ({**WHO, "logs_insights": {"log_group_arns": [f"{GROUP}:*"]}}, "without `:*` at its end"),
    ({**WHO, "logs_insights": {"log_group_arns": [GROUP], "kms_key_arns": ["alias/logs"]}}, "not of aliases"),
    ({**WHO, "lake": {"event_data_store_arns": [policies.STORE]}}, "at least one ARN of an event data store"),
    ({**WHO, "athena": {**ATHENA, "layout": "hour"}}, "timestamp, year_month_day or lake"),
    ({**WHO, "athena": {**ATHENA, "layout": "lake"}}, "trail_bucket is for layouts other than lake"),
    ({**WHO, "athena": {**ATHENA, "trail_bucket": None}}, "and is needed there"),
    ({**WHO, "athena": {**ATHENA, "table": "*"}}, "without `*` and slashes"),
    ({**WHO, "athena": {**ATHENA, "results_prefix": "athena"}}, "end with a slash"),
    ({**WHO, "athena": {**ATHENA, "account": "1"}}, "12 digits"),
    ({**WHO, "assume_role_arns": ["*"]}, "ARNs of roles"),
    ({**HISTORY, "irsa": {**WHO["irsa"], "namespace": "*"}}, "without `*`"),
    ({**HISTORY, "irsa": {**WHO["irsa"], "oidc_provider_arn": "oidc.eks"}}, "an OIDC provider"),
    ({**HISTORY, "pod_identity": {"cluster_arn": "production", "namespace": "monitoring"}}, "an EKS cluster"),
    ({**HISTORY, "ecs": {"account": "*"}}, "12 digits"),
    ({**HISTORY, "cross_account": {"exporter_role_arn": "*", "external_id": "some-id"}}, "the ARN of a role"),
    ({**HISTORY, "cross_account": {**ALL["cross_account"], "external_id": "*"}}, "2 to 1224"),
]


@needs_terraform
class Evaluated(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        # As a git address brings it: Terraform would copy a folder elsewhere without what is beside it.
        shutil.copytree(MODULES, self.folder / "deploy" / "terraform")
        shutil.copytree(policies.IAM, self.folder / "deploy" / "iam")
        # The module `role` needs a provider; what it is given needs none.
        (self.folder / "given").mkdir()
        shutil.copy(MODULES / "role" / "variables.tf", self.folder / "given")
        (self.folder / "given" / "outputs.tf").write_text('output "documents" {\n  value = var.documents\n}\n')

    def call(self, modules: dict[str, dict]) -> None:
        """A configuration that calls the module with each of these variables, and gives what comes out to `role`."""
        calls = {name: {"source": "./deploy/terraform/policies", **variables} for name, variables in modules.items()}
        given = {f"{name}_given": {"source": "./given", "documents": f"${{module.{name}}}"} for name in modules}
        values = {name: {"value": f"${{module.{name}_given.documents}}"} for name in modules}
        (self.folder / "main.tf.json").write_text(json.dumps({"module": calls | given, "output": values}))
        ran = terraform(self.folder, "init", "-input=false", "-no-color")
        self.assertEqual(ran.returncode, 0, ran.stderr)

    def applied(self, variables: dict) -> tuple[dict[str, dict], dict]:
        """The policies by name, and the trust policy."""
        self.call({"it": variables})
        told = self.made()
        return {name: json.loads(text) for name, text in told["policies"].items()}, json.loads(told["trust"])

    def made(self) -> dict:
        ran = terraform(self.folder, "apply", "-auto-approve", "-input=false", "-no-color")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return json.loads(terraform(self.folder, "output", "-json", "it").stdout)

    def test_its_documents_are_those_of_iam(self) -> None:
        made, trust = self.applied(ALL)
        shipped = {policies.name(file): policies.filled_in(file) for file in policies.POLICIES}
        del shipped["athena_lake"]
        self.assertEqual(made, {name.replace("/", "_"): document for name, document in shipped.items()})
        statements = [policies.trust(name)["Statement"][0] for name in TRUSTS]
        self.assertEqual(trust["Statement"], statements)
        self.assertEqual(len(policies.TRUSTS), len(statements))

    def test_policies_alone_for_a_role_that_is_there(self) -> None:
        self.call({"it": HISTORY})
        alone = json.loads((self.folder / "main.tf.json").read_text())
        del alone["module"]["it_given"]
        alone["output"] = {"it": {"value": "${module.it}"}}
        (self.folder / "main.tf.json").write_text(json.dumps(alone))
        made = self.made()
        self.assertEqual(made["trust"], None)
        self.assertEqual(json.loads(made["policies"]["event_history"]), policies.policy("event_history"))

    def test_a_federated_store(self) -> None:
        store = {"database": "aws:cloudtrail", "table": policies.STORE}
        made, _ = self.applied({"athena": {**ATHENA, **store, "layout": "lake", "trail_bucket": None}, **WHO})
        expected = policies.policy("athena_lake", **store)
        self.assertEqual(made, {"athena_lake": expected})

    def test_a_list_is_one_policy_and_what_is_for_doctor_can_be_left_out(self) -> None:
        other = f"{GROUP}-2"
        made, _ = self.applied({"logs_insights": {"log_group_arns": [GROUP, other]}, "doctor": False, **WHO})
        expected = policies.without(policies.policy("logs_insights"), "ForDoctor")
        expected["Statement"][0]["Resource"] = [f"{GROUP}:*", f"{other}:*"]
        self.assertEqual(made, {"logs_insights": expected})

    def test_values_that_make_no_sense_or_open_the_role_are_refused(self) -> None:
        modules = {f"case_{number}": variables for number, (variables, _) in enumerate(REFUSED)}
        self.call(modules)
        ran = terraform(self.folder, "plan", "-json", "-input=false")
        self.assertEqual(ran.returncode, 1, ran.stdout)
        found: dict[str, str] = {name: "" for name in modules}
        for line in ran.stdout.splitlines():
            if diagnostic := json.loads(line).get("diagnostic"):
                found[diagnostic["snippet"]["context"].removeprefix("module.")] += diagnostic["detail"]
        for (name, refusal), (variables, told) in zip(found.items(), REFUSED):
            with self.subTest(told, variables=variables):
                self.assertIn(told, refusal)

    def test_a_role_that_may_do_nothing_or_that_nobody_may_assume_is_refused(self) -> None:
        for variables, told in [(WHO, "No source is named"), (HISTORY, "Nobody may assume the role")]:
            with self.subTest(told):
                self.call({"it": variables})
                ran = terraform(self.folder, "plan", "-input=false", "-no-color")
                self.assertEqual(ran.returncode, 1)
                self.assertIn(told, " ".join(ran.stderr.split()))


if __name__ == "__main__":
    unittest.main()
