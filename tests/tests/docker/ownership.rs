//! Whose the files of a checkout are, and what others may do with them: `FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR`.

use drover_tests::Engine;
use gitlab_mock::JobBuilder;

use crate::world;

const FLAG: &str = "FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR";

#[tokio::test]
async fn files_are_open_to_everybody_or_belong_to_the_images_user() {
    Engine::shared().import(&["USER user"], "owner:1");
    let world = world(|entry| entry.set("docker.network_mode", "host")).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n"), ("deck/number", "2\n")], "one").await.unwrap();
    // Image, flag, and what a folder, a file and the scratch folder look like.
    let open = ["777 0 deck", "666 0 number"];
    let cases = [
        ("box:1", None, open),
        ("box:1", Some("false"), open),
        ("box:1", Some("true"), ["755 0 deck", "644 0 number"]),
        ("owner:1", None, open),
        ("owner:1", Some("false"), open),
        ("owner:1", Some("true"), ["755 1000 deck", "644 1000 number"]),
    ];
    let jobs = cases.map(|(image, flag, _)| {
        let mut job = JobBuilder::new(image)
            .repository(&repository)
            .image(image)
            .variable("GIT_STRATEGY", "clone")
            .file_variable("SETTING", "of the file")
            .script([
                "stat -c '%a %u %n' deck number",
                "echo more >>deck/number",
                "touch deck/new",
                "cat $SETTING",
            ])
            .after_script(["cat deck/number $SETTING"]);
        if let Some(flag) = flag {
            job = job.variable(FLAG, flag);
        }
        world.enqueue(job)
    });
    for (job, (image, flag, lines)) in jobs.iter().zip(cases) {
        let finished = world.finished(job).await.succeeded();
        for line in lines {
            assert_eq!(finished.count(line), 1, "{image} {flag:?} {line}: {}", finished.log);
        }
        finished.has_line("more").says("of the file");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_user_that_the_image_does_not_name_is_one_by_its_number() {
    let world = world(|entry| {
        entry
            .set("docker.network_mode", "host")
            .set("docker.user", "4711:4712")
            .set("feature_flags.FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR", true)
    })
    .await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    world
        .run(
            JobBuilder::new("numbered")
                .repository(&repository)
                .script(["stat -c '%a %u %g' number", "touch new"]),
        )
        .await
        .succeeded()
        .has_line("644 4711 4712");
    world.stop().await;
}
